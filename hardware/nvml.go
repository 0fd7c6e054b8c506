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

// ErrNoNVML means that the NVML library, the NVIDIA driver or a card is missing.
var ErrNoNVML = errors.New("NVML not available on this machine")

// NVMLConfig configures how NVML is called.
type NVMLConfig struct {
	// Command is the argument vector of the child process, which runs ServeNVML on its
	// standard input and output.
	Command    []string
	Library    string // default libnvidia-ml.so.1
	ProcfsPath string // default /proc
	// Timeout limits how long a Read waits for the child; default 2 s.
	Timeout time.Duration
	// StartTimeout limits how long NVML may take to initialize, which wakes each card up;
	// default 20 s.
	StartTimeout time.Duration
}

// NVML reads NVIDIA cards. The library is called only in a child process, because a fault in
// the library ends the process that called it.
type NVML struct {
	procfs string

	mu     sync.Mutex
	reader *nvmlReader
	cards  []*nvmlCard
	zones  []*energy.Zone
}

var _ PowerSensors = (*NVML)(nil)

// OpenNVML starts a child process and lists the cards. The error wraps ErrNoNVML if there are
// none, but not if NVML is present and fails.
func OpenNVML(config NVMLConfig) (*NVML, error) {
	config.Library = orDefault(config.Library, "libnvidia-ml.so.1")
	config.ProcfsPath = orDefault(config.ProcfsPath, "/proc")
	config.Timeout = cmp.Or(config.Timeout, 2*time.Second)
	config.StartTimeout = cmp.Or(config.StartTimeout, 20*time.Second)
	n := &NVML{procfs: config.ProcfsPath, reader: newNVMLReader(config)}
	response, err := n.reader.start(config.StartTimeout)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.update(response)
	return n, nil
}

// Name returns "nvml".
func (n *NVML) Name() string { return "nvml" }

// FallbackReason returns nil: NVML is the only source for cards.
func (n *NVML) FallbackReason() error { return nil }

// Zones returns one zone for each card that reports energy or power, in the order of discovery.
func (n *NVML) Zones() []*energy.Zone {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.zones)
}

// Cards returns the state of all cards as of the last Read or OpenNVML, ordered by index.
func (n *NVML) Cards() []energy.GPU {
	n.mu.Lock()
	defer n.mu.Unlock()
	cards := make([]energy.GPU, len(n.cards))
	for i, card := range n.cards {
		cards[i] = card.current
	}
	slices.SortStableFunc(cards, func(a, b energy.GPU) int { return cmp.Compare(a.Index, b.Index) })
	return cards
}

// Read reads every card. It waits at most Timeout for a new child; until that child is ready,
// every zone has a fault.
func (n *NVML) Read() ([]energy.Reading, []energy.Fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	response, err := n.reader.read()
	if err != nil {
		var faults []energy.Fault
		for _, card := range n.cards {
			faults = append(faults, card.fail(err.Error())...)
		}
		return nil, faults
	}
	readings, faults := n.update(response)
	n.reader.reinitialize(response.Stale || len(faults) > 0)
	return readings, faults
}

// Close ends the child. It fails if the child was killed but does not exit because it hangs in
// the driver.
func (n *NVML) Close() error {
	n.reader.interrupt()
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.reader.close()
}

// update applies a response to the cards and returns their readings and faults.
func (n *NVML) update(response nvmlResponse) ([]energy.Reading, []energy.Fault) {
	readings := make([]energy.Reading, 0, len(response.Cards))
	var faults []energy.Fault
	seen := map[*nvmlCard]bool{}
	for i := range response.Cards {
		values := &response.Cards[i]
		card := n.card(values)
		if card == nil {
			continue
		}
		seen[card] = true
		reading, fault := n.read(card, values)
		switch {
		case fault != "" && card.zone != nil:
			faults = append(faults, energy.Fault{Zone: card.zone, At: time.Now(), Err: fault})
		case fault == "" && reading.Zone != nil:
			readings = append(readings, reading)
		}
	}
	for _, card := range n.cards {
		if !seen[card] {
			faults = append(faults, card.fail("the driver no longer lists the card")...)
		}
	}
	return readings, faults
}

// card returns the card with the UUID of the values, and updates its details. The first values
// with details add a new card.
func (n *NVML) card(values *nvmlValues) *nvmlCard {
	i := slices.IndexFunc(n.cards, func(c *nvmlCard) bool { return c.details.UUID == values.UUID })
	if i < 0 {
		if values.Details == nil {
			return nil
		}
		n.cards = append(n.cards, newNVMLCard(n.procfs))
		i = len(n.cards) - 1
	}
	card := n.cards[i]
	card.setDetails(values, n.reader.child)
	return card
}

// read returns the card's reading. The reading has no zone for a card that reports neither
// energy nor power; the string is the reason for a failed read.
func (n *NVML) read(card *nvmlCard, values *nvmlValues) (energy.Reading, string) {
	if values.Fault != "" {
		card.fail(values.Fault)
		return energy.Reading{}, values.Fault
	}
	integrated := card.setPower(values)
	if card.zone == nil && (values.Energy != nil || integrated != nil) {
		// The counter of some virtual cards stays at 0.
		card.hasCounter = values.Energy != nil && (*values.Energy > 0 || integrated == nil)
		card.zone = card.newZone(n.unusedName(card.details.Index))
		n.zones = append(n.zones, card.zone)
	}
	return card.reading(values, integrated)
}

// unusedName returns gpu<index>, or the next free number if another card had that index before
// a driver reload.
func (n *NVML) unusedName(index int) string {
	for {
		name := fmt.Sprintf("gpu%d", index)
		if !slices.ContainsFunc(n.zones, func(z *energy.Zone) bool { return z.Name == name }) {
			return name
		}
		index++
	}
}
