// Package configs defines and loads the agent's configuration. Load merges command
// line flags, environment variables, one YAML file and the defaults, in that order
// of precedence, and returns either a valid Config or an *Error that lists every
// problem found.
//
// Flags, environment variables, defaults and validation all derive from the struct
// tags of Config. The package does not log and keeps no state: each Load returns a
// new Config, and its caller decides how to apply it.
package configs

import "time"

// Config holds all settings of the agent. The tags of its fields:
//
//	key           name in the YAML file, within its section
//	default       default value, as written in the file
//	default.NAME  on a section: default of the section's key NAME
//	allow         allowed values, see ruleFor
//	flag          command line flag, if the key has one
//	help          help text of the flag
//	alias         second environment variable, with lower precedence than the first
//	legacy        environment variable of an older worker, with lower precedence than both
//	live          the key takes effect by a reload; others need a restart
//	legacy.NAME   on a section: that of the section's key NAME
//
// Load resolves "auto" in DataDir, Control.Socket and, if the host name identifies the node,
// in Node.Address; otherwise an address is generated and kept in DataDir. Node.Type,
// Jobs.MinFreeDisk, Jobs.Limits, Energy.Estimate and Log.Format may still be "auto": the code that
// uses them resolves them, because the result can change while the agent runs.
type Config struct {
	// DataDir holds the journal, the job workspaces and the saved session.
	DataDir string `key:"data_dir" default:"auto" allow:"auto-path"`

	Node   Node   `key:"node"`
	Master Master `key:"master"`

	// Register makes the agent register on start-up; otherwise it resumes the saved node ID.
	Register bool `key:"register" default:"false" flag:"register" help:"register (default: resume the saved node id)"`
	// AllowMasterAsWorker permits a master on the same host.
	AllowMasterAsWorker bool `key:"allow_master_as_worker" default:"false" flag:"allow-master-as-worker" help:"allow a master on this host (development)"`
	// PollInterval is the interval between polls of an idle agent.
	PollInterval time.Duration `key:"poll_interval" live:"" default:"10s" allow:"10ms..24h" flag:"poll-interval" help:"how often an idle agent polls"`
	// HeartbeatInterval is the interval between heartbeats.
	HeartbeatInterval time.Duration `key:"heartbeat_interval" live:"" default:"30s" allow:"10ms..24h" flag:"heartbeat-interval" help:"how often to send a heartbeat"`
	// MetricsPort serves the agent's own metrics, health and status; 0 disables it.
	MetricsPort int `key:"metrics_port" default:"9091" allow:"0..65535" flag:"metrics-port" help:"metrics and readiness; 0: none"`

	Jobs      Jobs      `key:"jobs"`
	Shutdown  Shutdown  `key:"shutdown"`
	Hardware  Hardware  `key:"hardware"`
	Energy    Energy    `key:"energy"`
	Exporters Exporters `key:"exporters"`
	Traces    Traces    `key:"traces"`
	Log       Log       `key:"log"`
	Control   Control   `key:"control"`
	Debug     Debug     `key:"debug"`
}

// Node is how the agent identifies itself to the master.
type Node struct {
	// Address identifies the node: the master treats two agents with the same address as one
	// node. "auto" where one has to be generated.
	Address string `key:"address" default:"auto" allow:"address"`
	// Type is auto (detected), server, desktop or laptop.
	Type string `key:"type" default:"auto" allow:"auto|server|desktop|laptop"`
	// Labels are sent at registration.
	Labels Labels `key:"labels" default:"" allow:"labels"`
}

// Master configures the connection to the master.
type Master struct {
	URL                string `key:"url" default:"http://localhost:8080" allow:"url" flag:"master" help:"master URL" alias:"MASTER_URL"`
	APIKey             Secret `key:"api_key" live:"" default:"" allow:"secret" flag:"api-key" help:"bearer key; others see it: use --api-key-file" alias:"MASTER_API_KEY" legacy:"FFMPEG_RTMP_API_KEY"`
	APIKeyFile         string `key:"api_key_file" live:"" default:"" allow:"optional-path" flag:"api-key-file" help:"file containing the bearer key"`
	CA                 string `key:"ca" live:"" default:"" allow:"optional-path" flag:"ca" help:"the master's CA, PEM (default: the system's)"`
	Cert               string `key:"cert" live:"" default:"" allow:"optional-path" flag:"cert" help:"client certificate for mTLS, PEM"`
	Key                string `key:"key" live:"" default:"" allow:"optional-path" flag:"key" help:"private key of --cert, PEM"`
	InsecureSkipVerify bool   `key:"insecure_skip_verify" live:"" default:"false" flag:"insecure-skip-verify" help:"do not verify the master's certificate"`
	// UnavailableAfter is the master's own setting: how long it waits for a
	// heartbeat before it reassigns the node's job.
	UnavailableAfter time.Duration `key:"unavailable_after" live:"" default:"90s" allow:"100ms..24h"`
}

// Jobs limits what jobs may do and use.
type Jobs struct {
	MaxConcurrent int           `key:"max_concurrent" live:"" default:"1" allow:"1..256" flag:"max-concurrent-jobs" help:"job slots"`
	GenerateInput bool          `key:"generate_input" live:"" default:"true" flag:"generate-input" help:"make missing inputs of jobs"`
	Timeout       time.Duration `key:"timeout" live:"" default:"1h" allow:"100ms..720h"`
	// StallTimeout is how long a job may make no progress before it is stopped.
	StallTimeout        time.Duration `key:"stall_timeout" live:"" default:"60s" allow:"100ms..24h"`
	CancelCheckInterval time.Duration `key:"cancel_check_interval" live:"" default:"5s" allow:"10ms..1h"`
	// DamagedInput decides what becomes of a job whose input is incomplete or damaged: it
	// fails, or completes with a note. A job's accept_damaged overrides it.
	DamagedInput string `key:"damaged_input" live:"" default:"fail" allow:"fail|accept"`
	// EngineFallback has FFmpeg run jobs that ask for the engine gstreamer.
	EngineFallback bool `key:"engine_fallback" live:"" default:"true"`
	// PreferHardware lets a hardware encoder whose trial encode succeeded serve jobs that
	// name a codec but no encoder.
	PreferHardware bool `key:"prefer_hardware" live:"" default:"false"`
	// DefaultPresets are the presets of jobs that name none, by codec. Load adds the
	// defaults of the codecs that are left out.
	DefaultPresets Labels `key:"default_presets" live:"" default:"h264=fast,h265=fast,av1=8,vp9=good/4" allow:"presets"`
	KeepInputs     bool   `key:"keep_inputs" live:"" default:"false" legacy:"PERSIST_INPUTS"`
	KeepOutputs    bool   `key:"keep_outputs" live:"" default:"false" legacy:"PERSIST_OUTPUTS"`
	// OutputRoots are directories that jobs may write to, in addition to the job's
	// workspace and the system's temporary directory.
	OutputRoots []string `key:"output_roots" live:"" default:"" allow:"paths"`
	// InputRoots are directories that jobs may read local inputs from.
	InputRoots     []string `key:"input_roots" live:"" default:"/" allow:"paths"`
	InputProtocols []string `key:"input_protocols" live:"" default:"file,http,https,rtmp,rtmps,srt" allow:"protocols"`
	// InputFormats are the demuxers of FFmpeg that may read inputs. Those of playlists are
	// used for playlists alone, whatever is listed.
	InputFormats []string `key:"input_formats" live:"" default:"mov,matroska,webm,mpegts,mpeg,mpegvideo,avi,flv,live_flv,ogg,asf,asf_o,mxf,nut,ivf,h264,hevc,vvc,av1,obu,m4v,h263,vc1,dnxhd,mjpeg,mpjpeg,yuv4mpegpipe,gif,apng,dv,gxf" allow:"formats"`
	// InputNetworks are networks that inputs may reach beside the public and private ones.
	InputNetworks []string `key:"input_networks" live:"" default:"" allow:"networks"`
	// FetchInputs has inputs over http and https fetched into the workspace before FFmpeg starts.
	FetchInputs bool `key:"fetch_inputs" live:"" default:"true"`
	// Sandbox restricts each FFmpeg: auto as far as this system can, require takes no job
	// without the whole sandbox, off not at all.
	Sandbox string `key:"sandbox" default:"auto" allow:"auto|require|off"`
	// RunAs is the user that FFmpeg runs as; "" means the agent's.
	RunAs string `key:"run_as" default:"" allow:"user"`
	// MinFreeDisk is the free space below which the agent takes no job, and at which it stops a
	// job that writes to the disk.
	MinFreeDisk Size   `key:"min_free_disk" live:"" default:"auto" allow:"size"`
	Limits      Limits `key:"limits"`
}

// Limits are the ceilings of every job. A job may ask for less.
type Limits struct {
	// Memory is that of all processes of a job, a percentage of the machine's or of the
	// agent's cgroup; auto is 90 %.
	Memory Size `key:"memory" live:"" default:"auto" allow:"memory"`
	// Disk is what a job may write, its workspace included, and OutputBytes what its outputs
	// may have together; auto is no ceiling but MinFreeDisk.
	Disk        Size `key:"disk" live:"" default:"auto" allow:"amount"`
	OutputBytes Size `key:"output_bytes" live:"" default:"auto" allow:"amount"`
	// Pixels is the number in one picture of each of a job's outputs, together; auto is that of
	// 16384x16384.
	Pixels LimitCount `key:"pixels" live:"" default:"auto" allow:"pixels"`
	// Outputs is the number of a job's outputs; auto is 16.
	Outputs LimitCount `key:"outputs" live:"" default:"auto" allow:"outputs"`
	// Duration is the length of a job's media; auto is 24h.
	Duration LimitDuration `key:"duration" live:"" default:"auto" allow:"limit-24h"`
	// Timeout is the longest that a job may set; auto is 168h.
	Timeout LimitDuration `key:"timeout" live:"" default:"auto" allow:"limit-168h"`
}

// Shutdown configures how the agent stops.
type Shutdown struct {
	// DrainTimeout is how long running jobs may take to finish after the first signal.
	DrainTimeout time.Duration `key:"drain_timeout" live:"" default:"10m" allow:"0s..24h"`
}

// Hardware locates the kernel's files, libraries and programs.
type Hardware struct {
	SysfsPath    string `key:"sysfs_path" default:"/sys" allow:"path"`
	ProcfsPath   string `key:"procfs_path" default:"/proc" allow:"path"`
	NVMLLibrary  string `key:"nvml_library" default:"libnvidia-ml.so.1" allow:"library"`
	DockerSocket string `key:"docker_socket" default:"/var/run/docker.sock" allow:"path"`
	FFmpeg       string `key:"ffmpeg" default:"ffmpeg" allow:"program"`
	FFprobe      string `key:"ffprobe" default:"ffprobe" allow:"program"`
}

// Energy configures power sampling and, on machines without power sensors, estimation.
type Energy struct {
	// SampleInterval is the time between readings while a job runs; IdleInterval
	// applies while none does.
	SampleInterval time.Duration `key:"sample_interval" live:"" default:"100ms" allow:"5ms..10s"`
	IdleInterval   time.Duration `key:"idle_interval" live:"" default:"1s" allow:"10ms..1m"`
	Estimate       string        `key:"estimate" default:"auto" allow:"auto|off"`
	// CPUIdleWatts and CPUMaxWatts are the CPU power of this machine when idle and
	// at full load, for estimates; 0 means unknown.
	CPUIdleWatts float64 `key:"cpu_idle_watts" default:"0" allow:"0..10000"`
	CPUMaxWatts  float64 `key:"cpu_max_watts" default:"0" allow:"0..10000"`
}

// Exporters configures the metrics endpoints.
type Exporters struct {
	// ListenAddress is the IP address or host name that all metrics ports, MetricsPort
	// included, listen on; "" means all interfaces.
	ListenAddress string `key:"listen_address" default:"" allow:"listen"`
	// WebConfig is a Prometheus web configuration file (TLS, basic auth); "" means none.
	WebConfig string `key:"web_config" live:"" default:"" allow:"optional-path"`
	// FieldNames adds the names that dashboards in use rely on (ffrtmp_worker_*,
	// ffrtmp_job_*) to MetricsPort.
	FieldNames bool     `key:"field_names" default:"true"`
	CPU        Exporter `key:"cpu" default.port:"9510" legacy.port:"CPU_EXPORTER_PORT"`
	GPU        Exporter `key:"gpu" default.port:"9511" legacy.port:"GPU_EXPORTER_PORT"`
	FFmpeg     Exporter `key:"ffmpeg" default.port:"9506" legacy.port:"FFMPEG_EXPORTER_PORT"`
	Docker     Exporter `key:"docker" default.port:"9501" legacy.port:"DOCKER_STATS_PORT"`
}

// Exporter is one metrics endpoint.
type Exporter struct {
	Enabled bool `key:"enabled" default:"true"`
	Port    int  `key:"port" default:"" allow:"exporter-port"`
}

// Traces configures the export of OpenTelemetry traces.
type Traces struct {
	// Endpoint is the URL to which OTLP is posted; empty: nothing is exported.
	Endpoint string `key:"endpoint" default:"" allow:"optional-url"`
}

// Log configures logging.
type Log struct {
	Level string `key:"level" live:"" default:"info" allow:"debug|info|warn|error" flag:"log-level" help:"debug, info, warn or error"`
	// Format is auto (console on a terminal, json otherwise), console or json.
	Format string `key:"format" default:"auto" allow:"auto|console|json" flag:"log-format" help:"console, json or auto"`
}

// Control configures the unix socket that the operator commands use.
type Control struct {
	Socket string `key:"socket" default:"auto" allow:"auto-path"`
}

// Debug configures fault injection and hang detection.
type Debug struct {
	FaultInjection bool `key:"fault_injection" default:"false"`
	// HangAfter is how long an actor may stay unresponsive before it is replaced.
	HangAfter time.Duration `key:"hang_after" default:"30s" allow:"500ms..10m"`
	// SandboxWithout are layers that the sandbox is set up without, for tests.
	SandboxWithout []string `key:"sandbox_without" default:"" allow:"layers"`
}

// Defaults returns the configuration with every key at its default. Values that
// depend on the machine are still "auto"; Load resolves them.
func Defaults() Config {
	var cfg Config
	for _, k := range schema() {
		v, err := parse(k.typ, k.def)
		if err != nil {
			panic("configs: default of " + k.path + ": " + err.Error())
		}
		k.set(&cfg, v)
	}
	return cfg
}
