package ffmpeg

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"ffmpeg-agent/messages/job"
)

// maxPSNR is reported for an output that equals its input, whose PSNR is infinite, dB.
const maxPSNR = 100

// Measure compares the outputs with the input, if the job asks for it, and returns the
// quality of the first one; the renditions have that of each. A measure that failed is nil,
// with a note: the attempt succeeds without.
func (r *Run) Measure(ctx context.Context) (first job.Quality) {
	defer r.setPhase(job.PhaseJournal)
	if r.plan.quality == "" {
		return first
	}
	r.setPhase(job.PhaseQuality)
	n := len(r.plan.renditions)
	all := make([]job.Quality, n)
	for i := range all {
		measured := make(chan job.Quality, 1) // a step that was given up may still send
		if err := r.step(ctx, func(ctx context.Context) error {
			q, err := r.compare(ctx, i)
			measured <- q
			return err
		}); err != nil {
			all[i].Note = fmt.Sprintf("%s not measured: %v", r.plan.quality, err)
			continue
		}
		all[i] = <-measured
	}
	first = all[0]
	if n == 1 {
		return first
	}
	r.update(func(e *job.Encode) {
		e.Renditions = slices.Clone(e.Renditions)
		for i := range min(n, len(e.Renditions)) {
			e.Renditions[i].Quality = &all[i]
		}
	})
	if first.Note == "" {
		first.Partial = true
		first.Note = fmt.Sprintf("%s of the first output (%s); the job has %d outputs, see renditions", r.plan.quality, r.plan.renditions[0].size, n)
	}
	return first
}

// measures are FFmpeg's filters, with the options to write one line a frame, or a summary,
// to standard output, and the parser of that.
var measures = map[string]struct {
	filter, options string
	read            func(io.Reader) (float64, error)
}{
	"psnr": {"psnr", "stats_file=-", readPSNR},
	"ssim": {"ssim", "stats_file=-", readSSIM},
	"vmaf": {"libvmaf", "log_fmt=json:log_path=/dev/stdout", readVMAF},
}

// compare measures output i.
func (r *Run) compare(ctx context.Context, i int) (q job.Quality, err error) {
	measure := measures[r.plan.quality]
	switch {
	case r.plan.streaming:
		return q, errors.New("the output was streamed")
	case r.files.input.network:
		return q, errors.New("the input came over the network")
	case !r.caps.Filters[measure.filter]:
		return q, fmt.Errorf("this FFmpeg has no filter %s", measure.filter)
	}
	ctx, cancel := context.WithTimeout(ctx, r.plan.timeout)
	defer cancel()
	var value float64
	readErr := errors.New("no output")
	args := r.plan.qualityArgs(i, r.files.targets[i].arg, r.files.input, measure.filter+"="+measure.options)
	c := r.command(r.tools.ffmpeg, args)
	c.Stdout = func(in io.Reader) { value, readErr = measure.read(in) }
	exit, err := r.runHelper(ctx, c)
	if err != nil {
		return q, err
	}
	if !exit.OK() {
		return q, fmt.Errorf("FFmpeg: %s", exit)
	}
	if readErr != nil {
		return q, fmt.Errorf("parsing the measurement: %w", readErr)
	}
	switch r.plan.quality {
	case "psnr":
		q.PSNR = &value
	case "ssim":
		q.SSIM = &value
	case "vmaf":
		q.VMAF = &value
	}
	return q, nil
}

// qualityArgs compares output i with its input, which is brought to the output's rate and
// size as in the encode. The output passes the rate filter as well: in a container that
// rounds times to the millisecond its frames would be compared with their neighbours.
func (p *plan) qualityArgs(i int, output string, in source, filter string) []string {
	args := append([]string{"-nostdin", "-hide_banner", "-v", "error"}, source{url: output, options: ownOutput}.args()...)
	if in.looped || !p.whole {
		args = append(args, "-t", seconds(p.duration))
	}
	args = append(args, in.args()...)
	rate := ""
	if r := p.renditions[i]; r.fps.known() {
		rate = fmt.Sprintf("fps=%s,", r.fps)
	}
	graph := fmt.Sprintf("[0:v:0]%sformat=yuv420p,setpts=PTS-STARTPTS[output];[1:V:0]%s,format=yuv420p,setpts=PTS-STARTPTS[input];[output][input]%s:shortest=1",
		rate, p.renditions[i].geometry(), filter)
	return append(args, "-filter_complex", graph, "-f", "null", "-")
}

// readPSNR parses the lines of the psnr filter, "n:1 mse_avg:0.99 …", and returns the
// PSNR of the mean error over all frames and planes, in dB: 10·log10(255²/MSE).
func readPSNR(log io.Reader) (float64, error) {
	mse, err := meanOf(log, "mse_avg")
	if err != nil || mse == 0 {
		return maxPSNR, err
	}
	return min(10*math.Log10(255*255/mse), maxPSNR), nil
}

// readSSIM parses the lines of the ssim filter, "n:1 Y:0.99 U:… V:… All:0.99 (25.1)".
func readSSIM(log io.Reader) (float64, error) {
	return meanOf(log, "All")
}

// meanOf returns the mean of the values of a key.
func meanOf(log io.Reader, key string) (float64, error) {
	sum, n := 0.0, 0
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		for _, field := range strings.Fields(lines.Text()) {
			k, v, _ := strings.Cut(field, ":")
			if f, err := strconv.ParseFloat(v, 64); k == key && err == nil && f >= 0 && !math.IsInf(f, 0) {
				sum, n = sum+f, n+1
			}
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, fmt.Errorf("no %s found", key)
	}
	return sum / float64(n), nil
}

// readVMAF parses libvmaf's JSON.
func readVMAF(log io.Reader) (float64, error) {
	var report struct {
		Pooled map[string]struct {
			Mean *float64 `json:"mean"`
		} `json:"pooled_metrics"`
	}
	if err := json.NewDecoder(log).Decode(&report); err != nil {
		return 0, err
	}
	mean := report.Pooled["vmaf"].Mean
	if mean == nil || !(*mean >= 0 && *mean <= 100) {
		return 0, errors.New("no vmaf found")
	}
	return *mean, nil
}
