package ffmpeg

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"ffmpeg-agent/messages"
)

// mostPSNR stands for an output that equals its input, whose PSNR is infinite, dB.
const mostPSNR = 100

// measureWork compares the first output with its input. That it cannot is no
// failure of the attempt: the quality says why.
func (r *Run) measureWork(ctx context.Context) error {
	defer r.setPhase(messages.PhaseJournal)
	if r.plan.quality == "" {
		return nil
	}
	r.setPhase(messages.PhaseQuality)
	q, err := r.compare(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err != nil {
		q.Note = fmt.Sprintf("%s not measured: %v", r.plan.quality, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quality = q
	return nil
}

// filterOf names FFmpeg's filter for a measure, with the options that make it write
// one line a frame, or its summary, to a file in the workspace.
var filterOf = map[string]struct{ name, options string }{
	"psnr": {"psnr", "stats_file=quality.log"},
	"ssim": {"ssim", "stats_file=quality.log"},
	"vmaf": {"libvmaf", "log_fmt=json:log_path=quality.log"},
}

func (r *Run) compare(ctx context.Context) (q messages.Quality, err error) {
	filter := filterOf[r.plan.quality]
	switch {
	case r.plan.streaming:
		return q, errors.New("the output was streamed away")
	case r.place.input.network:
		return q, errors.New("the input came over the network")
	case !r.caps.Filters[filter.name]:
		return q, fmt.Errorf("this ffmpeg has no filter %s", filter.name)
	}
	ctx, cancel := context.WithTimeout(ctx, r.plan.timeout)
	defer cancel()
	exit, err := finish(ctx, command{
		path: r.tools.ffmpeg, args: r.plan.qualityArgs(r.place.targets[0].final, r.place.input, filter.name+"="+filter.options),
		dir: r.workspace, nice: r.settings.Nice,
	}, r.runner.bootID)
	if err != nil {
		return q, err
	}
	if !exit.ok() {
		return q, fmt.Errorf("ffmpeg: %s", exit)
	}
	log, err := os.Open(filepath.Join(r.workspace, "quality.log"))
	if err != nil {
		return q, fmt.Errorf("reading what was measured: %w", err)
	}
	defer log.Close()
	var value float64
	switch r.plan.quality {
	case "psnr":
		value, err = readPSNR(log)
		q.PSNR = &value
	case "ssim":
		value, err = readSSIM(log)
		q.SSIM = &value
	case "vmaf":
		value, err = readVMAF(log)
		q.VMAF = &value
	}
	if err != nil {
		return messages.Quality{}, fmt.Errorf("reading what was measured: %w", err)
	}
	return q, nil
}

// qualityArgs compares an output with its input, brought to the output's rate and
// size just as the encode did.
func (p *plan) qualityArgs(made string, in source, filter string) []string {
	args := []string{"-nostdin", "-hide_banner", "-v", "error", "-i", fileURL(made)}
	if in.looped || !p.whole {
		args = append(args, "-t", seconds(p.duration))
	}
	args = append(args, in.args()...)
	graph := fmt.Sprintf("[0:v:0]format=yuv420p,setpts=PTS-STARTPTS[made];[1:V:0]%s,format=yuv420p,setpts=PTS-STARTPTS[input];[made][input]%s:shortest=1",
		p.renditions[0].filter(), filter)
	return append(args, "-filter_complex", graph, "-f", "null", "-")
}

// readPSNR reads the psnr filter's lines, "n:1 mse_avg:0.99 …", and returns the
// PSNR of the mean error over all frames and planes, in dB: 10·log10(255²/MSE).
func readPSNR(log io.Reader) (float64, error) {
	mse, err := meanOf(log, "mse_avg")
	if err != nil || mse == 0 {
		return mostPSNR, err
	}
	return min(10*math.Log10(255*255/mse), mostPSNR), nil
}

// readSSIM reads the ssim filter's lines, "n:1 Y:0.99 U:… V:… All:0.99 (25.1)".
func readSSIM(log io.Reader) (float64, error) {
	return meanOf(log, "All")
}

// meanOf returns the mean of a key's values.
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
		return 0, fmt.Errorf("no %s in it", key)
	}
	return sum / float64(n), nil
}

// readVMAF reads libvmaf's JSON.
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
		return 0, errors.New("no vmaf in it")
	}
	return *mean, nil
}
