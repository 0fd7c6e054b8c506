package ffmpeg

import (
	"fmt"
	"math"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const mib = 1 << 20

// limits bound what all processes of an attempt may use together. Zero: unlimited.
type limits struct {
	cpu    cpuQuota
	weight int64    // cpu.weight, 1 to 10000
	memory int64    // bytes
	disk   int64    // bytes: workspace and outputs
	io     []string // lines of io.max

	memoryCeiling, diskCeiling bool // the limit is the operator's (jobs.limits)
}

// cpuQuota is the CPU time that may be used in each period, as in cpu.max, µs.
type cpuQuota struct{ quota, period int64 }

// Bounds of a quota that the kernel accepts, µs (tg_set_cfs_bandwidth in kernel/sched/core.c).
const (
	minQuota             = 1_000
	minPeriod, maxPeriod = 1_000, 1_000_000
	defaultPeriod        = 100_000
)

func (q cpuQuota) limited() bool { return q.quota > 0 }

// percent is the quota in percent of one CPU.
func (q cpuQuota) percent() float64 { return 100 * float64(q.quota) / float64(q.period) }

// whole is the number of whole CPUs, rounded up.
func (q cpuQuota) whole() int { return int((q.quota + q.period - 1) / q.period) }

func (q cpuQuota) String() string { return fmt.Sprintf("%d %d", q.quota, q.period) }

// tighter is the smaller of two bounds; 0 is unlimited.
func tighter(a, b int64) int64 {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

func (q cpuQuota) tighter(other cpuQuota) cpuQuota {
	if !q.limited() || other.limited() && other.percent() < q.percent() {
		return other
	}
	return q
}

// limits reads what bounds the job, and applies the operator's ceilings: one that the job
// asked to exceed is noted.
func (pl *planner) limits() (l limits, timeout time.Duration) {
	l, timeout = pl.askedLimits()
	c := pl.ceilings
	ceiling := func(what, key string, asked, most int64) (int64, bool) {
		if most == 0 || asked > 0 && asked <= most {
			return asked, false
		}
		if asked > 0 {
			pl.note("%s of %s reduced to the %s of jobs.limits.%s", what, mebibytes(asked), mebibytes(most), key)
		}
		return most, true
	}
	l.memory, l.memoryCeiling = ceiling("memory limit", "memory", l.memory, c.Memory)
	l.disk, l.diskCeiling = ceiling("disk limit", "disk", l.disk, c.Disk)
	if timeout > c.Timeout {
		pl.note("timeout of %s reduced to the %s of jobs.limits.timeout", timeout, c.Timeout)
		timeout = c.Timeout
	}
	return l, timeout
}

// askedLimits reads resource_limits among the job's parameters and the constraints beside
// them. Where both limit the same, the tighter one applies. A job's own timeout replaces
// the node's.
func (pl *planner) askedLimits() (l limits, timeout time.Duration) {
	l = pl.constraints()
	timeout = pl.settings.Timeout
	name, v, ok := pl.value("resource_limits")
	if !ok {
		return l, timeout
	}
	m, ok := v.(map[string]any)
	if !ok {
		pl.problem(name, "%s is not an object such as {\"timeout_sec\":600}", show(v))
		return l, timeout
	}
	own := pl.alone(name+".", m)
	if percent, ok := own.between(1, 1e6, " %", "max_cpu_percent"); ok {
		l.cpu = l.cpu.tighter(quotaOf(percent))
	}
	if mb, ok := own.between(1, 1e9, " MB", "max_memory_mb"); ok {
		l.memory = tighter(l.memory, int64(mb*mib))
	}
	if mb, ok := own.between(1, 1e9, " MB", "max_disk_mb"); ok {
		l.disk = int64(mb * mib)
	}
	if s, ok := own.between(0, maxTimeout.Seconds(), " s", "timeout_sec"); ok && s > 0 {
		timeout = time.Duration(s * float64(time.Second))
	}
	return l, timeout
}

// quotaOf is a quota in percent of one CPU: 200 is two CPUs.
func quotaOf(percent float64) cpuQuota {
	return cpuQuota{max(minQuota, int64(math.Round(percent*defaultPeriod/100))), defaultPeriod}
}

// constraints reads wrapper_constraints, which are in the terms of cgroup v2. Zero and the
// empty string count as absent.
func (pl *planner) constraints() (l limits) {
	c := pl.job.WrapperConstraints
	if c == nil {
		return l
	}
	at := func(name string) string { return "wrapper_constraints." + name }
	quota, err := parseCPUMax(c.CPUMax)
	if err != nil {
		pl.problem(at("cpu_max"), "%v", err)
	}
	l.cpu = quota
	if c.CPUWeight < 0 || c.CPUWeight > 10000 {
		pl.problem(at("cpu_weight"), "%d is not between 1 and 10000", c.CPUWeight)
	}
	l.weight = c.CPUWeight
	if c.MemoryMaxMB < 0 || c.MemoryMaxMB > 1e9 {
		pl.problem(at("memory_max_mb"), "%d is not between 1 and 1000000000 MB", c.MemoryMaxMB)
	}
	l.memory = c.MemoryMaxMB * mib
	if l.io, err = parseIOMax(c.IOMax); err != nil {
		pl.problem(at("io_max"), "%v", err)
	}
	return l
}

// cpuMaxPattern: "QUOTA PERIOD" or "QUOTA" in µs, "max" with or without a period, or a
// percentage of one CPU.
var cpuMaxPattern = regexp.MustCompile(`^(?:(max)(?: +\d+)?|(\d{1,12})(?: +(\d{1,12}))?|(\d{1,7}(?:\.\d{1,3})?) ?%)$`)

// parseCPUMax reads cpu_max in the format of cpu.max, or as a percentage.
func parseCPUMax(text string) (cpuQuota, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return cpuQuota{}, nil
	}
	m := cpuMaxPattern.FindStringSubmatch(text)
	switch {
	case m == nil:
	case m[1] != "":
		return cpuQuota{}, nil
	case m[4] != "":
		if percent, err := strconv.ParseFloat(m[4], 64); err == nil && percent >= 1 && percent <= 1e6 {
			return quotaOf(percent), nil
		}
	default:
		q := cpuQuota{period: defaultPeriod}
		q.quota, _ = strconv.ParseInt(m[2], 10, 64)
		if m[3] != "" {
			q.period, _ = strconv.ParseInt(m[3], 10, 64)
		}
		if q.quota >= minQuota && q.period >= minPeriod && q.period <= maxPeriod {
			return q, nil
		}
	}
	return cpuQuota{}, fmt.Errorf("%s is not QUOTA PERIOD in µs such as \"50000 100000\" (quota from %d, period within %d and %d), max, or a percentage of one CPU within 1%% and 1000000%%",
		show(text), minQuota, minPeriod, maxPeriod)
}

// ioMaxLine matches one line of io.max: a device's numbers and its limits.
var ioMaxLine = regexp.MustCompile(`^\d{1,9}:\d{1,9}(?: (?:rbps|wbps|riops|wiops)=(?:max|[1-9]\d{0,17}))+$`)

// parseIOMax reads io_max: lines of io.max, one per device.
func parseIOMax(text string) (lines []string, err error) {
	for _, line := range strings.Split(text, "\n") {
		line = strings.Join(strings.Fields(line), " ")
		if line == "" {
			continue
		}
		if !ioMaxLine.MatchString(line) {
			return nil, fmt.Errorf("%s is not MAJOR:MINOR with rbps=, wbps=, riops= or wiops= of a number above 0 or max, such as \"8:0 wbps=1048576\", one line per device", show(line))
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// maxTasks bounds the processes and threads of an attempt. The largest legitimate one is a
// ladder of 16 encoders, each with as many threads as the machine has CPUs.
func maxTasks() int { return 1024 + 64*runtime.NumCPU() }

// niceOf is the nice value whose share of the CPU, against nice 0, is that of a
// cpu.weight against the default of 100: each step of nice is a factor of 1.25
// (sched_prio_to_weight in kernel/sched/core.c). Weights above the default come out below
// 0, which requires a privilege.
func niceOf(weight int64) int {
	return min(19, int(math.Round(math.Log(100/float64(weight))/math.Log(1.25))))
}

// mebibytes formats an amount of bytes.
func mebibytes(n int64) string {
	return strconv.FormatFloat(math.Round(float64(n)/mib*10)/10, 'f', -1, 64) + " MiB"
}
