package hardware

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
)

func TestProcessTimes(t *testing.T) {
	const second = time.Second
	newProcfs := func(t *testing.T, namespace string) string {
		procfs := t.TempDir()
		must(t, os.Mkdir(filepath.Join(procfs, "10"), 0o755))
		must(t, os.MkdirAll(filepath.Join(procfs, "self/ns"), 0o755))
		must(t, os.Symlink(namespace, filepath.Join(procfs, "self/ns/pid")))
		return procfs
	}
	for name, namespace := range map[string]string{"root namespace": rootPIDNamespace, "other namespace": "pid:[4026532000]"} {
		t.Run(name, func(t *testing.T) {
			p := newProcessTimes(newProcfs(t, namespace))
			now := p.readAt
			add := func(ok bool, samples ...processSample) map[int]energy.GPUTime {
				now = now.Add(2 * second)
				return p.add(samples, ok, now)
			}
			expect := func(what string, got, want map[int]energy.GPUTime) {
				t.Helper()
				if !maps.Equal(got, want) || (got == nil) != (want == nil) {
					t.Errorf("%s: got %v, want %v", what, got, want)
				}
			}
			ten := energy.GPUTime{SM: second, Encoder: 2 * second}
			expect("one process", add(true, processSample{10, 50, 100, 0}), map[int]energy.GPUTime{10: ten})
			expect("no samples", add(true), map[int]energy.GPUTime{10: ten})
			expect("not reported", add(false), nil)
			expect("invalid samples", add(true, processSample{10, 4000000000, 0, 0}, processSample{0, 50, 0, 0}), map[int]energy.GPUTime{10: ten})
			var invisible map[int]energy.GPUTime
			if namespace == rootPIDNamespace { // there it must have exited
				invisible = map[int]energy.GPUTime{10: ten, 11: {Decoder: second}}
			}
			expect("invisible process", add(true, processSample{11, 0, 0, 50}), invisible)
			must(t, os.Remove(filepath.Join(p.procfs, "10")))
			ten.SM += second
			if got := add(true, processSample{10, 50, 0, 0}); got[10] != ten {
				t.Errorf("last sample of an exited process: got %v, want %v", got[10], ten)
			}
			now = now.Add(exitedRetention)
			expect("after the retention", add(true), map[int]energy.GPUTime{})
		})
	}
}

func TestProcessTotals(t *testing.T) {
	procfs := t.TempDir()
	must(t, os.Mkdir(filepath.Join(procfs, "1"), 0o755))
	p := processTotals{procfs: procfs}
	sm := func(v time.Duration) energy.GPUTime { return energy.GPUTime{SM: v} }
	type sums = map[int]energy.GPUTime
	for i, step := range []struct {
		source     string
		sums, want sums
	}{
		{"first child", nil, nil},
		{"first child", sums{1: sm(5), 2: sm(3)}, sums{1: sm(5), 2: sm(3)}},
		{"first child", sums{1: sm(9), 2: sm(3)}, sums{1: sm(9), 2: sm(3)}},
		{"first child", nil, nil},
		{"second child", sums{}, sums{1: sm(9), energy.ExitedPID: sm(3)}}, // 2 has exited
		{"second child", sums{1: sm(2)}, sums{1: sm(11), energy.ExitedPID: sm(3)}},
		{"second child", sums{1: sm(1)}, sums{1: sm(12), energy.ExitedPID: sm(3)}}, // the PID was reused
		{"third child", sums{1: sm(4), 3: sm(1)}, sums{1: sm(16), 3: sm(1), energy.ExitedPID: sm(3)}},
		{"third child", sums{1: sm(4)}, sums{1: sm(16), energy.ExitedPID: sm(4)}},
	} {
		if got := p.add(step.source, step.sums); !maps.Equal(got, step.want) || (got == nil) != (step.want == nil) {
			t.Errorf("step %d: got %v, want %v", i, got, step.want)
		}
	}
}
