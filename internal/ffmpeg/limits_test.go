package ffmpeg

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// limitsOf reads what a job bounds.
func limitsOf(t *testing.T, job string) (limits, time.Duration, []string) {
	t.Helper()
	var j protocol.Job
	if err := json.Unmarshal([]byte(job), &j); err != nil {
		t.Fatal(err)
	}
	p, problems, _ := newPlan(j, testNode(knownCaps, nil), media{})
	return p.limits, p.timeout, problems
}

func TestLimitsAreReadFromParametersAndConstraints(t *testing.T) {
	for job, want := range map[string]limits{
		`{}`:                         {},
		`{"wrapper_constraints":{}}`: {},
		`{"parameters":{"resource_limits":{"max_cpu_percent":"200","max_memory_mb":512,"max_disk_mb":1.5}}}`:                                         {cpu: cpuQuota{200000, 100000}, memory: 512 << 20, disk: 3 << 19},
		`{"wrapper_constraints":{"cpu_max":"50000 100000","cpu_weight":50,"memory_max_mb":64,"io_max":"8:0 rbps=1048576  wiops=max\n259:1 wbps=5"}}`: {cpu: cpuQuota{50000, 100000}, weight: 50, memory: 64 << 20, io: []string{"8:0 rbps=1048576 wiops=max", "259:1 wbps=5"}},
		`{"wrapper_constraints":{"cpu_max":"150%"}}`:                                                        {cpu: cpuQuota{150000, 100000}},
		`{"wrapper_constraints":{"cpu_max":"20000"}}`:                                                       {cpu: cpuQuota{20000, 100000}},
		`{"wrapper_constraints":{"cpu_max":"max 100000"}}`:                                                  {},
		`{"wrapper_constraints":{"cpu_max":"max"},"parameters":{"resource_limits":{"max_cpu_percent":50}}}`: {cpu: cpuQuota{50000, 100000}},
		`{"wrapper_constraints":{"cpu_max":"400000 200000","memory_max_mb":10},"parameters":{"resource_limits":{"max_cpu_percent":150,"max_memory_mb":20}}}`: {cpu: cpuQuota{150000, 100000}, memory: 10 << 20},
		`{"wrapper_constraints":{"cpu_max":"100000 200000","memory_max_mb":30},"parameters":{"resource_limits":{"max_cpu_percent":150,"max_memory_mb":20}}}`: {cpu: cpuQuota{100000, 200000}, memory: 20 << 20},
	} {
		got, _, problems := limitsOf(t, job)
		if fmt.Sprint(got) != fmt.Sprint(want) || len(problems) > 0 {
			t.Errorf("%s: %+v, want %+v; %v", job, got, want, problems)
		}
	}
}

func TestBadLimitsAreNamedWithWhatIsAllowed(t *testing.T) {
	for job, says := range map[string][]string{
		`{"wrapper_constraints":{"cpu_max":"half"}}`:                    {"wrapper_constraints.cpu_max: ", `"half"`, "50000 100000", "max"},
		`{"wrapper_constraints":{"cpu_max":"999 100000"}}`:              {"wrapper_constraints.cpu_max: ", "quota from 1000"},
		`{"wrapper_constraints":{"cpu_max":"50000 10"}}`:                {"wrapper_constraints.cpu_max: ", "within 1000 and 1000000"},
		`{"wrapper_constraints":{"cpu_max":"0%"}}`:                      {"wrapper_constraints.cpu_max: ", "1%"},
		`{"wrapper_constraints":{"cpu_max":"50000 100000\n+memory"}}`:   {"wrapper_constraints.cpu_max: "},
		`{"wrapper_constraints":{"cpu_weight":-1}}`:                     {"wrapper_constraints.cpu_weight: -1", "1 and 10000"},
		`{"wrapper_constraints":{"cpu_weight":10001}}`:                  {"wrapper_constraints.cpu_weight: 10001", "1 and 10000"},
		`{"wrapper_constraints":{"memory_max_mb":-5}}`:                  {"wrapper_constraints.memory_max_mb: -5", "1000000000 MB"},
		`{"wrapper_constraints":{"io_max":"sda wbps=1"}}`:               {"wrapper_constraints.io_max: ", "8:0 wbps=1048576"},
		`{"wrapper_constraints":{"io_max":"8:0 wbps=0"}}`:               {"wrapper_constraints.io_max: ", "above 0"},
		`{"parameters":{"resource_limits":{"max_cpu_percent":0}}}`:      {"resource_limits.max_cpu_percent: 0", "1 and 1e+06 %"},
		`{"parameters":{"resource_limits":{"max_memory_mb":"plenty"}}}`: {"resource_limits.max_memory_mb: ", `"plenty"`, "MB"},
		`{"parameters":{"resource_limits":{"max_disk_mb":-1}}}`:         {"resource_limits.max_disk_mb: -1", "MB"},
	} {
		_, _, problems := limitsOf(t, job)
		all := strings.Join(problems, "\n")
		for _, s := range says {
			if !strings.Contains(all, s) {
				t.Errorf("%s: no %q in %q", job, s, all)
			}
		}
	}
}

func TestNiceOfAWeight(t *testing.T) {
	for weight, want := range map[int64]int{100: 0, 80: 1, 51: 3, 10: 10, 1: 19, 125: -1, 10000: -21} {
		if got := niceOf(weight); got != want {
			t.Errorf("weight %d is nice %d, want %d", weight, got, want)
		}
	}
}

func TestLimitsAreCheckedMoreOftenTheLessIsLeft(t *testing.T) {
	const rate = 16 << 30
	for left, want := range map[uint64]time.Duration{
		0: checkInterval, 1 << 30: checkInterval, 8 << 30: time.Second / 2, 16 << 30: time.Second, math.MaxUint64: time.Second,
	} {
		if got := checkWait(left, rate); got != want {
			t.Errorf("%d bytes left: checked after %s, want %s", left, got, want)
		}
	}
}
