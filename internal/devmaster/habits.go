package devmaster

// Habits are what masters in use do beyond the protocol, or against it. The zero value has
// none of them.
type Habits struct {
	// FirstFactsOnly: a later registration of a known address stores heartbeat and status
	// only, although its response has the posted facts.
	FirstFactsOnly bool
	// UnreadableAfterRestart: after a restart from the state file, heartbeats of a node are
	// answered, but GET /nodes/{id} is 500 and GET /nodes omits the node, until it registers
	// again.
	UnreadableAfterRestart bool
	// OfflineUntilRegistered: a node that was offline stays offline, although it sends
	// heartbeats and is assigned jobs, until it registers again.
	OfflineUntilRegistered bool
	// MatchGPU: a job that needs a hardware encoder is not assigned to a node whose stored
	// facts lack it. It stays queued, and the jobs behind it with it.
	MatchGPU bool
}

// FieldHabits returns all habits.
func FieldHabits() Habits {
	return Habits{
		FirstFactsOnly:         true,
		UnreadableAfterRestart: true,
		OfflineUntilRegistered: true,
		MatchGPU:               true,
	}
}
