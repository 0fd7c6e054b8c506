package ffmpeg

import (
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func reports(t *testing.T, in string) []progressReport {
	t.Helper()
	var all []progressReport
	if err := readProgress(strings.NewReader(in), func(p progressReport) { all = append(all, p) }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestProgressOfARealEncode(t *testing.T) {
	got := reports(t, `frame=375
fps=187.31
stream_0_0_q=-1.0
bitrate= 581.3kbits/s
total_size=908313
out_time_us=12501333
out_time_ms=12501333
out_time=00:00:12.501333
dup_frames=0
drop_frames=2
speed=  39x
progress=end
`)
	want := progressReport{frames: 375, dropped: 2, fps: 187.31, speed: 39, kbps: 581.3, outTime: 12501333 * time.Microsecond, size: 908313, end: true}
	if len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestProgressQuirks(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want progressReport
	}{
		"milliseconds are microseconds": {"out_time_ms=1500000", progressReport{outTime: 1500 * time.Millisecond}},
		"time before zero":              {"out_time_us=-21333", progressReport{}},
		"time not known":                {"out_time_us=N/A", progressReport{}},
		"time out of any range":         {"out_time_us=9223372036854775807", progressReport{}},
		"rate not known yet":            {"fps=0.00", progressReport{}},
		"speed not known":               {"speed=N/A", progressReport{}},
		"speed nought":                  {"speed=   0x", progressReport{}},
		"speed with an exponent":        {"speed=1.07e+03x", progressReport{speed: 1070}},
		"size not known":                {"total_size=N/A", progressReport{}},
		"bitrate not known":             {"bitrate=N/A", progressReport{}},
		"number out of any range":       {"frame=99999999999999999999", progressReport{}},
		"frames below zero":             {"frame=-3", progressReport{}},
		"no number":                     {"fps=nan\nspeed=infx\nbitrate=-1kbits/s", progressReport{}},
		"spaces":                        {"  frame =  12  ", progressReport{}},
		"frame with spaces":             {"frame=   12", progressReport{frames: 12}},
		"carriage returns":              {"frame=12\r", progressReport{frames: 12}},
		"no key at all":                 {"what is this\n=\n==\n\x00\xff", progressReport{}},
		"line without an end to it":     {"frame=5\n" + strings.Repeat("x", 3*maxProgressLine) + "=1\nfps=2", progressReport{frames: 5, fps: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			got := reports(t, c.in+"\nprogress=continue\n")
			if len(got) != 1 || got[0] != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestProgressKeepsWhatItKnew(t *testing.T) {
	got := reports(t, "frame=10\ntotal_size=500\nout_time_us=1000000\nprogress=continue\nframe=9\ntotal_size=N/A\nout_time_us=N/A\nprogress=end")
	if len(got) != 2 || got[1].frames != 10 || got[1].size != 500 || got[1].outTime != time.Second || !got[1].end {
		t.Errorf("got %+v", got)
	}
}

func TestProgressReportsABrokenPipe(t *testing.T) {
	broken := errors.New("broken")
	in := io.MultiReader(strings.NewReader("frame=1\nprogress=continue\n"), iotest.ErrReader(broken))
	n := 0
	if err := readProgress(in, func(progressReport) { n++ }); !errors.Is(err, broken) || n != 1 {
		t.Errorf("%d reports, %v", n, err)
	}
}

func FuzzProgress(f *testing.F) {
	f.Add("frame=375\nfps=0.00\nspeed=1.07e+03x\nout_time_us=-5\ntotal_size=N/A\nprogress=end\n")
	f.Add(strings.Repeat("a=", maxProgressLine/2+1) + "\nframe=1\nprogress=continue\n")
	f.Add("out_time_us=\ntotal_size=")
	f.Add("fps=\xe30\nspeed=")
	f.Add("=\xfb\xf2")
	f.Fuzz(func(t *testing.T, in string) {
		var before progressReport
		err := readProgress(strings.NewReader(in), func(p progressReport) {
			for _, v := range []float64{p.fps, p.speed, p.kbps} {
				if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
					t.Errorf("%v in %+v", v, p)
				}
			}
			if p.frames < before.frames || p.outTime < before.outTime || p.size < before.size || p.dropped < before.dropped {
				t.Errorf("went back from %+v to %+v", before, p)
			}
			before = p
		})
		if err != nil {
			t.Error(err)
		}
	})
}
