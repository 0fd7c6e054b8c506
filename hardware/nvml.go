package hardware

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"ffmpeg-agent/hardware/energy"
)

// ErrNoNVML: the machine has nothing that NVML could tell of: no library, no driver,
// or no card.
var ErrNoNVML = errors.New("no NVIDIA cards")

// NVMLConfig says how NVML is reached.
type NVMLConfig struct {
	// Command is the argument vector of the child process: a program that runs
	// ServeNVML on its standard input and output.
	Command    []string
	Library    string // "" is libnvidia-ml.so.1
	ProcfsPath string // "" is /proc
	// Timeout is how long a Read waits for the child; 0 is 2 s.
	Timeout time.Duration
	// StartTimeout is how long NVML may take to start, which wakes up each card; 0
	// is 20 s.
	StartTimeout time.Duration
}

const (
	// nvmlUpdate is how often cards renew their sensors: every 20 to 100 ms,
	// depending on the model (Yang, Adamek, Armour: "Accurate and Convenient Energy
	// Measurements for GPUs", SC24, arXiv:2312.02741).
	nvmlUpdate = 100 * time.Millisecond
	// nvmlUncertainty is what NVIDIA documents of the power reading: "accurate to
	// within +/- 5% of current power draw" (nvml.h, nvmlDeviceGetPowerUsage; said of Fermi
	// and Kepler, and nothing is said of later cards. The paper above found up to
	// as much on those).
	nvmlUncertainty = 0.05
	// nvmlAveraged is how much of the past a card's power is the mean of (nvml.h,
	// nvmlDeviceGetPowerUsage: since Ampere; older cards tell that of the moment).
	nvmlAveraged = time.Second
	// maxPowerMargin is how far above the highest limit a card's power may lie
	// for moments.
	maxPowerMargin = 2
	// fullLook is how often the child is asked for what changes slowly.
	fullLook = time.Second
)

// Pacing of new child processes.
const (
	restartAtLeast = 100 * time.Millisecond // after a second failure in a row
	restartAtMost  = 30 * time.Second
	wellAfter      = 10 * time.Second // of good answers, after which failures are forgotten
	renewAtLeast   = time.Second      // before NVML is started again for a card that failed
	renewAtMost    = time.Minute
	reapWithin     = 100 * time.Millisecond // that a Read waits for the end of a child
)

// NVML reads NVIDIA's cards. The library is called in a child process: a fault in
// it ends that process and not this one. A child that is dead, silent or talks nonsense is killed
// and replaced; one whose cards got lost as well, since NVML must be started anew to find them again.
type NVML struct {
	config  NVMLConfig
	closing chan struct{}
	close   sync.Once

	mu       sync.Mutex
	child    *nvmlChild // nil: none yet
	lastID   uint64
	fullAt   time.Time // of the latest full look; zero: the next one is
	failures pace      // of children
	renewals pace      // for the sake of cards
	trouble  error     // of the latest failure
	cards    []*nvmlState
	zones    []*energy.Zone
}

// nvmlState is what is known of one card.
type nvmlState struct {
	details  energy.GPU   // as the latest full look told them
	now      energy.GPU   // for Cards
	zone     *energy.Zone // nil: it tells neither energy nor power
	counter  bool         // the zone's figure is the energy counter
	maxPower energy.Watts
	power    cardPower
	use      useTotals
}

var _ PowerSensors = (*NVML)(nil)

// OpenNVML starts a child and has it find the cards. The error is ErrNoNVML with
// the reason where there are none, and another one where there is something that
// does not work.
func OpenNVML(config NVMLConfig) (*NVML, error) {
	config.Library = orDefault(config.Library, "libnvidia-ml.so.1")
	config.ProcfsPath = orDefault(config.ProcfsPath, "/proc")
	config.Timeout = cmp.Or(config.Timeout, 2*time.Second)
	config.StartTimeout = cmp.Or(config.StartTimeout, 20*time.Second)
	n := &NVML{
		config: config, closing: make(chan struct{}),
		failures: pace{least: restartAtLeast, most: restartAtMost, firstAtOnce: true},
		renewals: pace{least: renewAtLeast, most: renewAtMost},
	}
	answer, err := n.begin(config.StartTimeout)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.take(answer)
	return n, nil
}

// Name is nvml.
func (n *NVML) Name() string { return "nvml" }

// Because is nil: there are no better sensors than these.
func (n *NVML) Because() error { return nil }

// Zones are those of the cards that tell their energy or power, in the order in which
// they were found.
func (n *NVML) Zones() []*energy.Zone {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.zones)
}

// Cards are all cards as the last Read, or OpenNVML, saw them, in the order of their
// indices.
func (n *NVML) Cards() []energy.GPU {
	n.mu.Lock()
	defer n.mu.Unlock()
	cards := make([]energy.GPU, len(n.cards))
	for i, card := range n.cards {
		cards[i] = card.now
	}
	slices.SortStableFunc(cards, func(a, b energy.GPU) int { return cmp.Compare(a.Index, b.Index) })
	return cards
}

// Read looks at each card. It waits for a new child no longer than the Timeout;
// until that has found the cards each is a fault.
func (n *NVML) Read() ([]energy.Reading, []energy.Fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	answer, err := n.look()
	if err != nil {
		return nil, n.allFail(err.Error())
	}
	readings, faults := n.take(answer)
	n.renewIfStale(answer.Stale || len(faults) > 0)
	return readings, faults
}

// Close ends the child. It fails when the child does not end though it was killed,
// as one that hangs in the driver.
func (n *NVML) Close() error {
	n.close.Do(func() { close(n.closing) })
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.child == nil {
		return nil
	}
	n.child.closeInput()
	if n.child.waitDone(reapWithin) {
		return nil
	}
	n.child.kill()
	if !n.child.waitDone(n.config.Timeout) {
		return fmt.Errorf("the NVML process %d does not end though it was killed", n.child.ID().PID)
	}
	return nil
}

// look has the child look at the cards.
func (n *NVML) look() (nvmlAnswer, error) {
	switch {
	case n.closed():
		return nvmlAnswer{}, errClosed
	case n.child == nil || !n.child.endingSince.IsZero():
		return n.begin(n.config.Timeout)
	case !n.child.ready:
		if _, err := n.first(n.config.Timeout); err != nil {
			return nvmlAnswer{}, err
		}
		n.fullAt = time.Time{} // what it saw is of another time
	}
	return n.ask()
}

var errClosed = errors.New("closed")

func (n *NVML) closed() bool {
	select {
	case <-n.closing:
		return true
	default:
		return false
	}
}

// begin starts a child, if it is time to, and waits for its first answer.
func (n *NVML) begin(within time.Duration) (nvmlAnswer, error) {
	if n.child != nil && !n.child.waitDone(reapWithin) {
		if time.Since(n.child.endingSince) > 2*orphanGrace {
			n.child.kill()
		}
		return nvmlAnswer{}, fmt.Errorf("the NVML process %d does not end though it was told to", n.child.ID().PID)
	}
	if wait := n.failures.wait(time.Now()); wait > 0 {
		return nvmlAnswer{}, fmt.Errorf("%w (next attempt in %v)", n.trouble, wait.Round(time.Millisecond))
	}
	child, err := startNVMLChild(n.config.Command)
	if err != nil {
		n.failures.failed(time.Now())
		n.trouble = err
		return nvmlAnswer{}, err
	}
	n.child = child
	n.lastID++
	child.requestedAt = monotonic()
	setup := nvmlSetup{Library: n.config.Library, ProcfsPath: n.config.ProcfsPath}
	if err := child.send(n.config.Timeout, setup, nvmlRequest{ID: n.lastID, Full: true}); err != nil {
		return nvmlAnswer{}, n.giveUp(err)
	}
	return n.first(within)
}

// first waits for a child's first answer.
func (n *NVML) first(within time.Duration) (nvmlAnswer, error) {
	left := n.config.StartTimeout - time.Since(n.child.Started())
	answer, err := n.receive(min(within, left))
	switch {
	case errors.Is(err, errSilent) && within < left:
		return answer, fmt.Errorf("NVML has been starting for %v", time.Since(n.child.Started()).Round(time.Millisecond))
	case errors.Is(err, errSilent):
		err = fmt.Errorf("NVML did not start within %v", n.config.StartTimeout)
	}
	if err != nil {
		return answer, n.giveUp(err)
	}
	n.child.ready = true
	n.fullAt = time.Now()
	return answer, nil
}

// ask makes one exchange with a child that is ready.
func (n *NVML) ask() (nvmlAnswer, error) {
	select {
	case line, open := <-n.child.lines:
		if open {
			return nvmlAnswer{}, n.giveUp(fmt.Errorf("the NVML process spoke without being asked: %.60q", line.text))
		}
		return nvmlAnswer{}, n.giveUp(n.child.exitError())
	default:
	}
	now := time.Now()
	full := now.Sub(n.fullAt) >= fullLook
	n.lastID++
	n.child.requestedAt = monotonic()
	if err := n.child.send(n.config.Timeout, nvmlRequest{ID: n.lastID, Full: full}); err != nil {
		return nvmlAnswer{}, n.giveUp(err)
	}
	answer, err := n.receive(n.config.Timeout)
	if err != nil {
		return answer, n.giveUp(err)
	}
	if full {
		n.fullAt = now
	}
	if now.Sub(n.child.Started()) >= wellAfter {
		n.failures.well()
	}
	return answer, nil
}

var errSilent = errors.New("silent")

// receive waits for the answer to the latest request.
func (n *NVML) receive(within time.Duration) (nvmlAnswer, error) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case line, open := <-n.child.lines:
		switch {
		case !open:
			return nvmlAnswer{}, n.child.exitError()
		case line.err != nil:
			return nvmlAnswer{}, fmt.Errorf("the NVML process talks nonsense: %w", line.err)
		}
		answer, err := parseAnswer(line.text, n.lastID, n.child.requestedAt, monotonic())
		switch {
		case err != nil:
			return answer, fmt.Errorf("the NVML process talks nonsense: %w", err)
		case answer.Failure != nil && answer.Failure.None:
			return answer, fmt.Errorf("%w: %s", ErrNoNVML, answer.Failure.Reason)
		case answer.Failure != nil:
			return answer, errors.New(answer.Failure.Reason)
		}
		return answer, nil
	case <-timer.C:
		return nvmlAnswer{}, fmt.Errorf("%w: the NVML process did not answer within %v", errSilent, within)
	case <-n.closing:
		return nvmlAnswer{}, errClosed
	}
}

// giveUp kills the child for a reason. The process is reaped on its own time: one that
// hangs in the driver may take any.
func (n *NVML) giveUp(why error) error {
	n.child.kill()
	n.child.endingSince = time.Now()
	n.fullAt = time.Time{}
	n.failures.failed(time.Now())
	n.trouble = why
	return why
}

// renewIfStale has NVML start anew, in a new child, when some card has been in need of it
// for long enough.
func (n *NVML) renewIfStale(stale bool) {
	now := time.Now()
	if !stale {
		n.renewals.well()
		return
	}
	if n.renewals.next.IsZero() {
		n.renewals.failed(now)
	}
	if n.renewals.wait(now) > 0 {
		return
	}
	n.renewals.failed(now)
	n.child.closeInput()
	n.child.endingSince = now
}

// take works in what a look saw.
func (n *NVML) take(answer nvmlAnswer) ([]energy.Reading, []energy.Fault) {
	readings := make([]energy.Reading, 0, len(answer.Cards))
	var faults []energy.Fault
	seen := map[*nvmlState]bool{}
	for i := range answer.Cards {
		card := &answer.Cards[i]
		state := n.state(card)
		if state == nil {
			continue
		}
		seen[state] = true
		reading, why := n.read(state, card)
		switch {
		case why != "" && state.zone != nil:
			faults = append(faults, energy.Fault{Zone: state.zone, At: time.Now(), Err: why})
		case why == "" && reading.Zone != nil:
			readings = append(readings, reading)
		}
	}
	for _, state := range n.cards {
		if !seen[state] {
			faults = append(faults, state.fail("the driver does not know the card any more")...)
		}
	}
	return readings, faults
}

// state finds a card's state by its UUID. One that was not there before begins with
// its first full look.
func (n *NVML) state(card *nvmlCard) *nvmlState {
	i := slices.IndexFunc(n.cards, func(s *nvmlState) bool { return s.details.UUID == card.UUID })
	if i < 0 {
		if card.Details == nil {
			return nil
		}
		n.cards = append(n.cards, &nvmlState{power: newCardPower(), use: useTotals{procfs: n.config.ProcfsPath}})
		i = len(n.cards) - 1
	}
	state := n.cards[i]
	if card.Details != nil {
		state.details = *card.Details
		state.details.ProcessesAt = onClock(card.At)
		if state.details.Processes = state.use.add(n.child, card.Processes); state.details.Processes != nil {
			state.details.ProcessesAt = time.Now()
		}
	}
	if card.MaxPower != nil {
		state.maxPower = max(state.maxPower, milliwatts(*card.MaxPower))
	}
	return state
}

// read is one card's reading; without a zone where it has none, and with a reason
// where it could not be read.
func (n *NVML) read(state *nvmlState, card *nvmlCard) (energy.Reading, string) {
	if card.Fault != "" {
		state.fail(card.Fault)
		return energy.Reading{}, card.Fault
	}
	at := onClock(card.At)
	state.now = state.details
	state.now.At = at
	state.now.Power, state.now.PowerInstant = watts(card.Power), watts(card.Instant)
	cross := state.power.add(at, watts(card.averaged()))
	if state.zone == nil && (card.Energy != nil || cross != nil) {
		// Some virtual cards have a counter that stays at 0.
		n.addZone(state, card.Energy != nil && (*card.Energy > 0 || cross == nil))
	}
	reading := energy.Reading{Zone: state.zone, At: at, Utilization: busiest(&state.details), Suspended: asleep()}
	switch {
	case state.zone == nil:
	case state.counter && card.Energy == nil, !state.counter && cross == nil:
		why := "the card does not tell its power any more"
		state.now.Fault = why
		return energy.Reading{}, why
	case state.counter:
		reading.Counter, reading.CrossCheck = energy.Microjoules(*card.Energy)*1000, cross
	default:
		reading.Counter = *cross
	}
	return reading, ""
}

// busiest is the use of a card's busiest part, 0 to 1; nil where it tells of none.
func busiest(card *energy.GPU) *float64 {
	var busy *float64
	for _, percent := range []*float64{card.UtilizationPercent, card.EncoderUtilizationPercent, card.DecoderUtilizationPercent} {
		if percent != nil && (busy == nil || *percent/100 > *busy) {
			part := *percent / 100
			busy = &part
		}
	}
	return busy
}

// addZone gives a card its zone, which keeps its name and method for good.
func (n *NVML) addZone(state *nvmlState, counter bool) {
	method, averaged := "nvml power", nvmlAveraged
	if counter {
		method, averaged = "nvml", 0
	}
	state.counter = counter
	state.zone = &energy.Zone{
		ID: state.details.UUID, Name: n.freeName(state.details.Index), Domain: energy.DomainGPU,
		Counted: true, Source: energy.Measured, Method: method,
		UpdateInterval: nvmlUpdate, Uncertainty: nvmlUncertainty, AveragedOver: averaged, MaxPower: maxPowerMargin * state.maxPower,
	}
	n.zones = append(n.zones, state.zone)
}

// freeName is gpu with the card's index, or with the next number where another card
// had that index before.
func (n *NVML) freeName(index int) string {
	for {
		name := fmt.Sprintf("gpu%d", index)
		if !slices.ContainsFunc(n.zones, func(z *energy.Zone) bool { return z.Name == name }) {
			return name
		}
		index++
	}
}

func (n *NVML) allFail(why string) []energy.Fault {
	var faults []energy.Fault
	for _, state := range n.cards {
		faults = append(faults, state.fail(why)...)
	}
	return faults
}

// fail notes that a card could not be read: all it told before is of the past.
func (s *nvmlState) fail(why string) []energy.Fault {
	d, now := s.details, time.Now()
	s.now = energy.GPU{At: now, Index: d.Index, Name: d.Name, UUID: d.UUID, Driver: d.Driver, MIG: d.MIG, Fault: why}
	s.power.missed = true
	if s.zone == nil {
		return nil
	}
	return []energy.Fault{{Zone: s.zone, At: now, Err: why}}
}

// pace spaces out attempts: doubling waits between two bounds.
type pace struct {
	least, most time.Duration
	firstAtOnce bool // the first failure calls for no wait
	count       int
	next        time.Time
}

func (p *pace) well() { p.count, p.next = 0, time.Time{} }

func (p *pace) failed(now time.Time) {
	doublings := p.count
	if p.firstAtOnce {
		doublings--
	}
	p.count++
	p.next = now
	if doublings >= 0 {
		p.next = now.Add(min(p.most, p.least<<min(doublings, 20)))
	}
}

// wait is how long it is until the next attempt; 0 or less: it is time.
func (p *pace) wait(now time.Time) time.Duration { return p.next.Sub(now) }
