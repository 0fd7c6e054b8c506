package exporters

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
)

// FieldConfig configures the collector of names that dashboards in use rely on.
type FieldConfig struct {
	Status func() messages.Status
	Cards  func() []energy.GPU // latest reading of each graphics card
	// Facts returns what is known of this node; proved: its encoders have been tried.
	Facts func() (facts messages.NodeFacts, proved bool)
	// StaleAfter returns the age at which a card's last reading is too old to export. nil
	// means 3 minutes.
	StaleAfter func() time.Duration
}

// fieldCollector exports the state of the agent under the names that dashboards in use rely
// on. The names and units are theirs; a value that is not known has no series. Each series
// is labeled with the node's ID, so there are none before the node is registered.
type fieldCollector struct {
	FieldConfig
	descs map[string]*prometheus.Desc // by name
}

const (
	worker = "ffrtmp_worker_"
	perJob = "ffrtmp_job_"
)

// onTimeRule is job.Outcome.OnTime in words.
const onTimeRule = "a job complies if it completed by its timeout_at or, where it has none, if FFmpeg ran no longer than 110 % of what the output plays and 5 s; canceled jobs do not count"

// NewField returns the collector of the names that dashboards in use rely on.
func NewField(cfg FieldConfig) prometheus.Collector {
	if cfg.StaleAfter == nil {
		cfg.StaleAfter = func() time.Duration { return defaultStaleAfter }
	}
	c := &fieldCollector{FieldConfig: cfg, descs: map[string]*prometheus.Desc{}}
	var d describer
	for _, m := range []struct{ name, help string }{
		{worker + "cpu_usage", "CPU load of the machine over all threads in percent."},
		{worker + "memory_bytes", "Memory of the machine that is in use and not available to programs, in bytes."},
		{worker + "power_watts", "Power draw of all graphics cards together; absent unless each can be read. The machine's is ffmpeg_agent_power_watts."},
		{worker + "temperature_celsius", "Temperature of the hottest graphics card that can be read."},
		{worker + "has_gpu", "Whether a hardware encoder of this machine passed a trial encode, as the node is registered; absent until trials have ended."},
		{worker + "nvenc_available", "Whether a trial encode with an NVENC encoder succeeded; absent until trials have ended."},
		{worker + "qsv_available", "Whether a trial encode with a QSV encoder succeeded; absent until trials have ended."},
		{worker + "vaapi_available", "Whether a trial encode with a VAAPI encoder succeeded; absent until trials have ended."},
		{worker + "uptime_seconds", "Time since the agent started."},
		{worker + "active_jobs", "Number of running jobs."},
		{worker + "heartbeats_total", "Heartbeats answered by the master since the agent started."},
		{worker + "jobs_completed_total", "Jobs completed since the agent started."},
		{worker + "jobs_failed_total", "Jobs failed since the agent started, by attempt."},
		{worker + "jobs_canceled_total", "Jobs canceled since the agent started."},
		{worker + "jobs_canceled_graceful_total", "Canceled jobs whose FFmpeg was not running or ended when asked to (SIGTERM)."},
		{worker + "jobs_canceled_forceful_total", "Canceled jobs whose FFmpeg had to be killed (SIGKILL)."},
		{worker + "total_inputs_generated", "Synthetic inputs generated since the agent started."},
		{worker + "input_generation_duration_seconds", "Time it took to generate the last synthetic input."},
		{worker + "input_file_size_bytes", "Size of the last synthetic input."},
		{worker + "bandwidth_utilization", "Traffic of the busiest network interface over the last seconds in percent of its speed, the busier direction; absent where no interface tells its speed."},
		{worker + "sla_compliance_rate", "Percentage of jobs that complied with their service level since the agent started: " + onTimeRule + "."},
		{worker + "jobs_sla_compliant_total", "Jobs that complied with their service level: " + onTimeRule + "."},
		{worker + "jobs_sla_violation_total", "Jobs that failed or did not comply with their service level: " + onTimeRule + "."},
		{perJob + "input_bytes_total", "Size of the inputs of completed jobs; inputs of unknown size, such as streams, are not included."},
		{perJob + "output_bytes_total", "Size of the outputs of completed jobs."},
		{perJob + "last_input_bytes", "Size of the input of the job that completed last; absent if unknown, as of a stream."},
		{perJob + "last_output_bytes", "Size of the outputs of the job that completed last."},
		{perJob + "last_bandwidth_mbps", "Size of input and outputs of the job that completed last, divided by how long FFmpeg ran, in 10^6 bits per second."},
	} {
		c.descs[m.name] = d.desc(m.name, m.help, "node_id")
	}
	c.descs[worker+"gpu_usage"] = d.desc(worker+"gpu_usage", "GPU utilization in percent, the mean of the cards of a model.", "node_id", "gpu_model")
	return newCollector("field", d.all, c.update)
}

func (c *fieldCollector) update(m *metrics) {
	s := c.Status()
	if s.Session == nil {
		return
	}
	f := fieldMetrics{m, c.descs, s.Session.NodeID}
	if !s.StartedAt.IsZero() {
		f.gauge(worker+"uptime_seconds", s.At.Sub(s.StartedAt).Seconds())
	}
	if s.Heartbeat != nil {
		f.counter(worker+"heartbeats_total", s.Heartbeat.Sent)
	}
	f.machine(s.Host)
	f.jobs(&s)
	f.bytes(&s)
	c.hardware(f)
}

// fieldMetrics adds metrics with the node's ID.
type fieldMetrics struct {
	m      *metrics
	descs  map[string]*prometheus.Desc
	nodeID string
}

func (f fieldMetrics) gauge(name string, value float64, labels ...string) {
	f.m.gauge(f.descs[name], value, append([]string{f.nodeID}, labels...)...)
}

func (f fieldMetrics) counter(name string, value uint64) {
	f.m.counter(f.descs[name], float64(value), f.nodeID)
}

// known adds a gauge unless its value is nil.
func (f fieldMetrics) known(name string, value *float64) {
	if value != nil {
		f.gauge(name, *value)
	}
}

func (f fieldMetrics) machine(host *messages.HostStatus) {
	if host == nil {
		return
	}
	f.known(worker+"cpu_usage", host.CPULoadPercent)
	f.known(worker+"bandwidth_utilization", host.NetworkLoadPercent)
	if host.RAMTotalBytes != nil && host.RAMFreeBytes != nil && *host.RAMFreeBytes <= *host.RAMTotalBytes {
		f.gauge(worker+"memory_bytes", float64(*host.RAMTotalBytes-*host.RAMFreeBytes))
	}
}

func (f fieldMetrics) jobs(s *messages.Status) {
	n := s.Counts
	f.gauge(worker+"active_jobs", float64(len(s.Jobs)))
	f.counter(worker+"jobs_completed_total", n.Completed)
	f.counter(worker+"jobs_failed_total", n.Failed)
	f.counter(worker+"jobs_canceled_total", n.Canceled)
	// The two counts are not read at one moment.
	f.counter(worker+"jobs_canceled_graceful_total", n.Canceled-min(n.Canceled, n.CanceledForcefully))
	f.counter(worker+"jobs_canceled_forceful_total", n.CanceledForcefully)
	f.counter(worker+"jobs_sla_compliant_total", n.OnTime)
	f.counter(worker+"jobs_sla_violation_total", n.NotOnTime)
	if judged := n.OnTime + n.NotOnTime; judged > 0 {
		f.gauge(worker+"sla_compliance_rate", 100*float64(n.OnTime)/float64(judged))
	}
}

func (f fieldMetrics) bytes(s *messages.Status) {
	f.counter(perJob+"input_bytes_total", s.Counts.InputBytes)
	f.counter(perJob+"output_bytes_total", s.Counts.OutputBytes)
	if last := s.LastCompleted; last != nil {
		if last.InputBytes != nil {
			f.gauge(perJob+"last_input_bytes", float64(*last.InputBytes))
		}
		if last.OutputBytes != nil {
			f.gauge(perJob+"last_output_bytes", float64(*last.OutputBytes))
		}
		if last.InputBytes != nil && last.OutputBytes != nil && last.Wall > 0 {
			f.gauge(perJob+"last_bandwidth_mbps", 8*float64(*last.InputBytes+*last.OutputBytes)/1e6/last.Wall.Seconds())
		}
	}
	f.counter(worker+"total_inputs_generated", s.Counts.InputsGenerated)
	if g := s.LastGenerated; g != nil {
		f.gauge(worker+"input_generation_duration_seconds", g.Took.Seconds())
		if g.SizeBytes > 0 {
			f.gauge(worker+"input_file_size_bytes", float64(g.SizeBytes))
		}
	}
}

func (c *fieldCollector) hardware(f fieldMetrics) {
	cards := c.Cards()
	c.cards(f, cards)
	facts, proved := c.Facts()
	if !proved {
		return
	}
	f.gauge(worker+"has_gpu", oneIf(facts.Scheduling().HasGPU))
	for _, family := range []string{"nvenc", "qsv", "vaapi"} {
		works := slices.ContainsFunc(facts.GPUCapabilities, func(name string) bool { return strings.HasPrefix(name, family+"_") })
		f.gauge(worker+family+"_available", oneIf(works))
	}
}

func (c *fieldCollector) cards(f fieldMetrics, cards []energy.GPU) {
	var power float64
	allKnown := len(cards) > 0
	var hottest *float64
	usage := map[string][]float64{} // by model
	for i := range cards {
		card := &cards[i]
		if card.Fault != "" || time.Since(card.At) >= c.StaleAfter() {
			allKnown = false
			continue
		}
		if card.Power != nil {
			power += float64(*card.Power)
		}
		allKnown = allKnown && card.Power != nil
		if t := card.TemperatureCelsius; t != nil && (hottest == nil || *t > *hottest) {
			hottest = t
		}
		if card.UtilizationPercent != nil {
			model := validUTF8(card.Name)
			usage[model] = append(usage[model], *card.UtilizationPercent)
		}
	}
	if allKnown {
		f.gauge(worker+"power_watts", power)
	}
	f.known(worker+"temperature_celsius", hottest)
	for model, percents := range usage {
		var sum float64
		for _, percent := range percents {
			sum += percent
		}
		f.gauge(worker+"gpu_usage", sum/float64(len(percents)), model)
	}
}
