// Package configs is the agent's configuration: every key there is, its default,
// what it may be, and where its value came from. Load merges command line flags,
// environment, one YAML file and the defaults, in that order of precedence, and
// either returns a whole valid Config or names everything that is wrong with it.
//
// The struct tags of Config are the one table that flags, environment variables,
// defaults and validation derive from. The package knows nothing of the parts it
// configures, opens nothing but the file it is told to read, logs nothing and
// keeps no state: who loads again gets a new Config and decides what to do with it.
package configs

import "time"

// Config is everything about the agent that can be set. The tags of its fields:
//
//	key      name in the YAML file, below its section
//	default  as it would be written in the file
//	allow    what the value may be, see ruleFor
//	flag     the command line flag, where there is one
//	help     that flag's help text
//	alias    a second environment variable, which gives way to the first
//
// Load leaves DataDir, Node.Address and Control.Socket resolved; Node.Type,
// Jobs.MinFreeDisk, Energy.Estimate and Log.Format may still say auto, because
// who uses them knows better what that means at the time.
type Config struct {
	// DataDir is where the journal, job workspaces and saved session live.
	DataDir string `key:"data_dir" default:"auto" allow:"auto-path"`

	Node   Node   `key:"node"`
	Master Master `key:"master"`

	// Register announces the node on start-up; without it a saved node id is resumed.
	Register bool `key:"register" default:"false" flag:"register" help:"register with the master on start-up; without it, resume the node id saved earlier"`
	// AllowMasterAsWorker permits a master on this very host.
	AllowMasterAsWorker bool `key:"allow_master_as_worker" default:"false" flag:"allow-master-as-worker" help:"permit a master on this very host (development)"`
	// PollInterval is how often an idle agent asks for work.
	PollInterval time.Duration `key:"poll_interval" default:"10s" allow:"10ms..24h" flag:"poll-interval" help:"how often an idle agent asks for work"`
	// HeartbeatInterval is how often a heartbeat is sent.
	HeartbeatInterval time.Duration `key:"heartbeat_interval" default:"30s" allow:"10ms..24h" flag:"heartbeat-interval" help:"how often a heartbeat is sent"`
	// MetricsPort serves the agent's own metrics, health and status; 0 turns it off.
	MetricsPort int `key:"metrics_port" default:"9091" allow:"0..65535" flag:"metrics-port" help:"port of the agent's own metrics, health and readiness; 0 turns it off"`

	Jobs      Jobs      `key:"jobs"`
	Shutdown  Shutdown  `key:"shutdown"`
	Hardware  Hardware  `key:"hardware"`
	Energy    Energy    `key:"energy"`
	Exporters Exporters `key:"exporters"`
	Log       Log       `key:"log"`
	Control   Control   `key:"control"`
	Debug     Debug     `key:"debug"`
}

// Node is what the agent says about itself to the master.
type Node struct {
	// Address is the node's identity: two agents with one address are one node.
	Address string `key:"address" default:"auto" allow:"address"`
	// Type is auto (detected), server, desktop or laptop.
	Type string `key:"type" default:"auto" allow:"auto|server|desktop|laptop"`
	// Labels are sent along at registration.
	Labels Labels `key:"labels" default:"" allow:"labels"`
}

// Master is how the master is reached and trusted.
type Master struct {
	URL                string `key:"url" default:"http://localhost:8080" allow:"url" flag:"master" help:"master URL" alias:"MASTER_URL"`
	APIKey             Secret `key:"api_key" default:"" allow:"secret" flag:"api-key" help:"bearer key; better MASTER_API_KEY or --api-key-file, for other users can see this one" alias:"MASTER_API_KEY"`
	APIKeyFile         string `key:"api_key_file" default:"" allow:"optional-path" flag:"api-key-file" help:"file that holds the bearer key"`
	CA                 string `key:"ca" default:"" allow:"optional-path" flag:"ca" help:"CA that signed the master's certificate (default: the system's)"`
	Cert               string `key:"cert" default:"" allow:"optional-path" flag:"cert" help:"client certificate for mTLS, PEM"`
	Key                string `key:"key" default:"" allow:"optional-path" flag:"key" help:"private key of --cert, PEM"`
	InsecureSkipVerify bool   `key:"insecure_skip_verify" default:"false" flag:"insecure-skip-verify" help:"do not verify the master's certificate"`
	// UnavailableAfter is how long the master waits for a heartbeat before it
	// gives the node's job away.
	UnavailableAfter time.Duration `key:"unavailable_after" default:"90s" allow:"100ms..24h"`
}

// Jobs bounds what jobs may do and use.
type Jobs struct {
	MaxConcurrent int           `key:"max_concurrent" default:"1" allow:"1..256" flag:"max-concurrent-jobs" help:"job slots"`
	GenerateInput bool          `key:"generate_input" default:"true" flag:"generate-input" help:"make a synthetic input when a job names none"`
	Timeout       time.Duration `key:"timeout" default:"1h" allow:"100ms..720h"`
	// StallTimeout ends a job that makes no progress for this long.
	StallTimeout        time.Duration `key:"stall_timeout" default:"60s" allow:"100ms..24h"`
	CancelCheckInterval time.Duration `key:"cancel_check_interval" default:"5s" allow:"10ms..1h"`
	KeepInputs          bool          `key:"keep_inputs" default:"false"`
	KeepOutputs         bool          `key:"keep_outputs" default:"false"`
	// OutputRoots are directories that a job's output may lie below, beside its
	// workspace and the system's temporary folder.
	OutputRoots []string `key:"output_roots" default:"" allow:"paths"`
	// InputRoots are directories that a job's local input may lie below.
	InputRoots     []string `key:"input_roots" default:"/" allow:"paths"`
	InputProtocols []string `key:"input_protocols" default:"file,http,https,rtmp,rtmps,srt" allow:"protocols"`
	// MinFreeDisk is the free space below which no job is taken.
	MinFreeDisk Size `key:"min_free_disk" default:"auto" allow:"size"`
}

// Shutdown is how the agent stops.
type Shutdown struct {
	// DrainTimeout is how long a running job may go on after the first signal.
	DrainTimeout time.Duration `key:"drain_timeout" default:"10m" allow:"0s..24h"`
}

// Hardware is where the machine's facts and tools are found.
type Hardware struct {
	SysfsPath    string `key:"sysfs_path" default:"/sys" allow:"path"`
	ProcfsPath   string `key:"procfs_path" default:"/proc" allow:"path"`
	NVMLLibrary  string `key:"nvml_library" default:"libnvidia-ml.so.1" allow:"library"`
	DockerSocket string `key:"docker_socket" default:"/var/run/docker.sock" allow:"path"`
	FFmpeg       string `key:"ffmpeg" default:"ffmpeg" allow:"program"`
	FFprobe      string `key:"ffprobe" default:"ffprobe" allow:"program"`
}

// Energy is how power is sampled and, where nothing measures it, estimated.
type Energy struct {
	// SampleInterval is the time between readings while a job runs, IdleInterval otherwise.
	SampleInterval time.Duration `key:"sample_interval" default:"100ms" allow:"5ms..10s"`
	IdleInterval   time.Duration `key:"idle_interval" default:"1s" allow:"10ms..1m"`
	Estimate       string        `key:"estimate" default:"auto" allow:"auto|off"`
	// CPUIdleWatts and CPUMaxWatts are this machine's figures; 0 is unknown.
	CPUIdleWatts float64 `key:"cpu_idle_watts" default:"0" allow:"0..10000"`
	CPUMaxWatts  float64 `key:"cpu_max_watts" default:"0" allow:"0..10000"`
}

// Exporters are the four metrics endpoints beside MetricsPort.
type Exporters struct {
	// ListenAddress is the IP address or host that every metrics port listens on; "" is all interfaces.
	ListenAddress string `key:"listen_address" default:"" allow:"listen"`
	// WebConfig is a Prometheus web configuration file (TLS, basic auth); "" is none.
	WebConfig string         `key:"web_config" default:"" allow:"optional-path"`
	CPU       CPUExporter    `key:"cpu"`
	GPU       GPUExporter    `key:"gpu"`
	FFmpeg    FFmpegExporter `key:"ffmpeg"`
	Docker    DockerExporter `key:"docker"`
}

// CPUExporter is the endpoint of CPU power.
type CPUExporter struct {
	Enabled bool `key:"enabled" default:"true"`
	Port    int  `key:"port" default:"9510" allow:"1..65535"`
}

// GPUExporter is the endpoint of the GPUs.
type GPUExporter struct {
	Enabled bool `key:"enabled" default:"true"`
	Port    int  `key:"port" default:"9511" allow:"1..65535"`
}

// FFmpegExporter is the endpoint of the running encodes.
type FFmpegExporter struct {
	Enabled bool `key:"enabled" default:"true"`
	Port    int  `key:"port" default:"9506" allow:"1..65535"`
}

// DockerExporter is the endpoint of the machine's containers.
type DockerExporter struct {
	Enabled bool `key:"enabled" default:"true"`
	Port    int  `key:"port" default:"9501" allow:"1..65535"`
}

// Log is what is logged and how.
type Log struct {
	Level string `key:"level" default:"info" allow:"debug|info|warn|error" flag:"log-level" help:"debug, info, warn or error"`
	// Format is auto (console on a terminal, json otherwise), console or json.
	Format string `key:"format" default:"auto" allow:"auto|console|json" flag:"log-format" help:"console, json, or auto: console on a terminal, json otherwise"`
}

// Control is the local unix socket for operators.
type Control struct {
	Socket string `key:"socket" default:"auto" allow:"auto-path"`
}

// Debug is for chaos runs.
type Debug struct {
	FaultInjection bool `key:"fault_injection" default:"false"`
	// HangAfter is how long a part of the agent may not answer until it is replaced.
	HangAfter time.Duration `key:"hang_after" default:"30s" allow:"500ms..10m"`
}

// Defaults returns the configuration of an agent that was told nothing. What
// depends on the machine still says auto; Load resolves it.
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
