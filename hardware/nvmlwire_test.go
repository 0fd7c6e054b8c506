package hardware

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
)

// What a child might say instead of an answer to request 7, asked for at 1000.
func TestParseAnswer(t *testing.T) {
	const rest = `,"energy_mj":5,"power_mw":70000}`
	for name, test := range map[string]struct{ line, says string }{
		"good":                 {`{"id":7,"cards":[{"uuid":"a","at_ns":1500` + rest + `]}`, ""},
		"good in full":         {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"details":{"uuid":"a","index":3,"use_percent":100},"processes":{"9":{"sm_ns":5}}}]}`, ""},
		"good fault":           {`{"id":7,"stale":true,"cards":[{"uuid":"a","at_ns":0,"fault":"lost"}]}`, ""},
		"failure":              {`{"id":7,"failure":{"none":true,"reason":"no"}}`, ""},
		"nothing":              {``, "not an answer"},
		"a log line":           {`NVML: warning`, "not an answer"},
		"half an answer":       {`{"id":7,"cards":[{"uuid":"a","at_ns":1500`, "not an answer"},
		"two answers":          {`{"id":7}{"id":7}`, "not an answer"},
		"a number as text":     {`{"id":"7"}`, "not an answer"},
		"negative energy":      {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"energy_mj":-1}]}`, "not an answer"},
		"broken power":         {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"power_mw":0.5}]}`, "not an answer"},
		"another request":      {`{"id":6,"cards":[{"uuid":"a","at_ns":1500` + rest + `]}`, "request 6 instead of 7"},
		"no cards":             {`{"id":7}`, "0 cards"},
		"a card twice":         {`{"id":7,"cards":[{"uuid":"a","at_ns":1500` + rest + `,{"uuid":"a","at_ns":1500` + rest + `]}`, "for a card"},
		"a card without name":  {`{"id":7,"cards":[{"at_ns":1500` + rest + `]}`, "for a card"},
		"a long name":          {`{"id":7,"cards":[{"uuid":"` + strings.Repeat("a", 1000) + `","at_ns":1500` + rest + `]}`, "for a card"},
		"too many cards":       {`{"id":7,"cards":[` + strings.Repeat(`{},`, 64) + `{}]}`, "65 cards"},
		"looked before":        {`{"id":7,"cards":[{"uuid":"a","at_ns":999` + rest + `]}`, "before or after"},
		"will look":            {`{"id":7,"cards":[{"uuid":"a","at_ns":2001` + rest + `]}`, "before or after"},
		"more energy than fit": {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"energy_mj":18446744073709551615}]}`, "energy of"},
		"absurd power":         {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"power_mw":4294967295}]}`, "power of"},
		"absurd instant power": {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"instant_mw":4294967295}]}`, "power of"},
		"absurd limit":         {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"max_power_mw":4294967295}]}`, "power of"},
		"details of another":   {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"details":{"uuid":"b"}}]}`, "details of"},
		"absurd index":         {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"details":{"uuid":"a","index":-1}}]}`, "details of"},
		"absurd use":           {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"details":{"uuid":"a","encoder_use_percent":101}}]}`, "used to"},
		"absurd process":       {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"details":{"uuid":"a"},"processes":{"0":{}}}]}`, "process 0"},
		"time that ran back":   {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"details":{"uuid":"a"},"processes":{"9":{"sm_ns":-5}}}]}`, "process 9"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseAnswer([]byte(test.line), 7, 1000, 2000)
			if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("error is %v, want %q", err, test.says)
			}
		})
	}
}

// Whatever a child says, what is taken for an answer holds no absurd figure.
func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte(`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"energy_mj":5,"power_mw":70000,"details":{"uuid":"a","throttle_reasons":[]},"processes":{}}]}`))
	f.Add([]byte(`{"id":7,"failure":{"none":true,"reason":"no"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		answer, err := parseAnswer(line, 7, 1000, 2000)
		if err != nil || answer.Failure != nil {
			return
		}
		n := &NVML{}
		readings, _ := n.take(answer)
		for _, r := range readings {
			if r.Counter < 0 || r.Zone == nil || r.At.IsZero() {
				t.Errorf("reading %+v of %s", r, line)
			}
		}
	})
}

func TestProcessUse(t *testing.T) {
	const second = time.Second
	machine := func(t *testing.T, namespace string, pids ...string) string {
		procfs := t.TempDir()
		for _, pid := range pids {
			if err := os.Mkdir(filepath.Join(procfs, pid), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(filepath.Join(procfs, "self/ns"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(namespace, filepath.Join(procfs, "self/ns/pid")); err != nil {
			t.Fatal(err)
		}
		return procfs
	}
	for name, namespace := range map[string]string{"the machine's namespace": firstPIDNamespace, "another namespace": "pid:[4026532000]"} {
		t.Run(name, func(t *testing.T) {
			p := newProcessUse(machine(t, namespace, "10"))
			now := p.since()
			look := func(ok bool, samples ...processSample) map[int]energy.GPUTime {
				now = now.Add(2 * second)
				return p.add(samples, ok, now)
			}
			want := func(what string, got, want map[int]energy.GPUTime) {
				t.Helper()
				if !maps.Equal(got, want) || (got == nil) != (want == nil) {
					t.Errorf("%s: %v, want %v", what, got, want)
				}
			}
			ten := energy.GPUTime{SM: second, Encoder: 2 * second}
			want("one process", look(true, processSample{10, 50, 100, 0}), map[int]energy.GPUTime{10: ten})
			want("nobody", look(true), map[int]energy.GPUTime{10: ten})
			want("not told", look(false), nil)
			want("nonsense", look(true, processSample{10, 4000000000, 0, 0}, processSample{0, 50, 0, 0}), map[int]energy.GPUTime{10: ten})
			stranger := map[int]energy.GPUTime(nil)
			if namespace == firstPIDNamespace { // it has ended meanwhile
				stranger = map[int]energy.GPUTime{10: ten, 11: {Decoder: second}}
			}
			want("one that cannot be seen", look(true, processSample{11, 0, 0, 50}), stranger)
			if err := os.Remove(filepath.Join(p.procfs, "10")); err != nil {
				t.Fatal(err)
			}
			ten.SM += second
			if got := look(true, processSample{10, 50, 0, 0}); got[10] != ten {
				t.Errorf("the last of a process that ended: %v, want %v", got[10], ten)
			}
			now = now.Add(forgetAfter)
			want("long after", look(true), map[int]energy.GPUTime{})
		})
	}
}

func TestUseTotals(t *testing.T) {
	procfs := t.TempDir()
	if err := os.Mkdir(filepath.Join(procfs, "1"), 0o755); err != nil {
		t.Fatal(err)
	}
	u := useTotals{procfs: procfs}
	sm := func(v time.Duration) energy.GPUTime { return energy.GPUTime{SM: v} }
	type sums = map[int]energy.GPUTime
	for i, look := range []struct {
		teller     string
		told, want sums
	}{
		{"first child", nil, nil},
		{"first child", sums{1: sm(5), 2: sm(3)}, sums{1: sm(5), 2: sm(3)}},
		{"first child", sums{1: sm(9), 2: sm(3)}, sums{1: sm(9), 2: sm(3)}},
		{"first child", nil, nil},
		{"second child", sums{}, sums{1: sm(9), energy.ExitedPID: sm(3)}}, // 2 has ended
		{"second child", sums{1: sm(2)}, sums{1: sm(11), energy.ExitedPID: sm(3)}},
		{"second child", sums{1: sm(1)}, sums{1: sm(12), energy.ExitedPID: sm(3)}}, // began again
		{"third child", sums{1: sm(4), 3: sm(1)}, sums{1: sm(16), 3: sm(1), energy.ExitedPID: sm(3)}},
		{"third child", sums{1: sm(4)}, sums{1: sm(16), energy.ExitedPID: sm(4)}},
	} {
		if got := u.add(look.teller, look.told); !maps.Equal(got, look.want) || (got == nil) != (look.want == nil) {
			t.Errorf("look %d: %v, want %v", i, got, look.want)
		}
	}
}

func TestCardPower(t *testing.T) {
	at := time.Now()
	w := func(v float64) *energy.Watts { p := energy.Watts(v); return &p }
	p := newCardPower()
	step := func(after time.Duration, power *energy.Watts) (energy.Microjoules, bool) {
		at = at.Add(after)
		before := p.counter()
		counter := p.add(at, power)
		if counter == nil {
			return 0, false
		}
		return *counter - before, true
	}
	for i, look := range []struct {
		after time.Duration
		power *energy.Watts
		moved energy.Microjoules // below 0: a step back
		known bool
	}{
		{0, w(100), 0, true},
		{time.Second, w(200), 150e6, true},
		{time.Second, nil, 0, false},
		{time.Second, w(200), 400e6, true}, // across one that failed
		{time.Second, nil, 0, false},
		{2 * time.Second, w(200), -1, true}, // failed for too long
		{time.Second, nil, 0, false},
		{2 * time.Second, w(200), -1, true}, // and again, with nothing counted in between
		{30 * time.Second, w(0), 3000e6, true},
		{time.Second, w(0), 0, true}, // 0 W is a figure
	} {
		moved, known := step(look.after, look.power)
		if moved != look.moved || known != look.known {
			t.Errorf("look %d: counter moved by %d, %v; want %d, %v", i, moved, known, look.moved, look.known)
		}
	}
}

func TestTail(t *testing.T) {
	for name, test := range map[string]struct{ said, want string }{
		"nothing": {"", ""},
		"lines":   {"one\n\ntwo", "one; two"},
		"many":    {strings.Repeat("early\n", 100) + "1\n2\n3\n4\n5\n", "1; 2; 3; 4; 5"},
		"long":    {strings.Repeat("x", 1<<20), strings.Repeat("x", tailLineBytes)},
		"fault": {"SIGSEGV: segmentation violation\nPC=0x1\n\ngoroutine 1 [syscall]:\nruntime.cgocall(0x1)\n\t/usr/x.go:1\n" +
			"github.com/NVIDIA/go-nvml/pkg/nvml._Cfunc_nvmlDeviceGetName(0x2)\n", "SIGSEGV: segmentation violation; PC=0x1; in nvmlDeviceGetName"},
	} {
		t.Run(name, func(t *testing.T) {
			var tail stderrTail
			tail.read(strings.NewReader(test.said))
			if got := tail.String(); !strings.HasSuffix(got, test.want) || len(got) > tailLines*(tailLineBytes+2) || len(got) < len(test.want) {
				t.Errorf("kept %q, want %q", got, test.want)
			}
		})
	}
}
