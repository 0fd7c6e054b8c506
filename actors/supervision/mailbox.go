package supervision

import (
	"sync"

	"github.com/asynkron/protoactor-go/actor"
)

// mailbox is a protoactor mailbox that outlives whatever its actor does in a turn:
// a panic and a Goexit are caught with their stack and handed to the owner, who
// alone suspends and resumes it. System messages go first.
type mailbox struct {
	owner owner

	mu        sync.Mutex
	system    queue
	user      queue
	ready     bool // the actor has been set up
	running   bool // a goroutine is working it off
	suspended bool // user messages wait
	closed    bool // user messages are dropped
}

// owner handles a mailbox's messages, one at a time.
type owner interface {
	handleSystem(msg any)
	handleUser(msg any)
	// failed is told of the message that ended in a panic or a Goexit.
	failed(msg any, p *PanicError)
	// dropped is told of each message that will not be handled.
	dropped(msg any)
}

var _ actor.Mailbox = (*mailbox)(nil)

// PostUserMessage implements actor.Mailbox.
func (m *mailbox) PostUserMessage(msg any) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		m.owner.dropped(msg)
		return
	}
	m.user.push(msg)
	m.schedule()
	m.mu.Unlock()
}

// PostSystemMessage implements actor.Mailbox.
func (m *mailbox) PostSystemMessage(msg any) {
	m.mu.Lock()
	m.system.push(msg)
	m.schedule()
	m.mu.Unlock()
}

// RegisterHandlers implements actor.Mailbox. The handlers are the owner's.
func (m *mailbox) RegisterHandlers(actor.MessageInvoker, actor.Dispatcher) {}

// Start implements actor.Mailbox.
func (m *mailbox) Start() {
	m.mu.Lock()
	m.ready = true
	m.schedule()
	m.mu.Unlock()
}

// UserMessageCount implements actor.Mailbox.
func (m *mailbox) UserMessageCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.user.n
}

func (m *mailbox) suspend(yes bool) {
	m.mu.Lock()
	m.suspended = yes
	m.mu.Unlock()
}

// close drops the user messages that wait, and those to come.
func (m *mailbox) close() {
	m.mu.Lock()
	m.closed = true
	waiting := m.user
	m.user = queue{}
	m.mu.Unlock()
	for waiting.n > 0 {
		m.owner.dropped(waiting.pop())
	}
}

// schedule is called with mu held.
func (m *mailbox) schedule() {
	if m.running || !m.ready || m.system.n == 0 && (m.suspended || m.user.n == 0) {
		return
	}
	m.running = true
	go m.run()
}

// run works the mailbox off until nothing is left to do. When a message ends in a
// panic or a Goexit, a fresh goroutine goes on.
func (m *mailbox) run() {
	var current any
	watched(func() {
		for {
			msg, isSystem, ok := m.next()
			if !ok {
				return
			}
			current = msg
			if isSystem {
				m.owner.handleSystem(msg)
			} else {
				m.owner.handleUser(msg)
			}
		}
	}, func(p *PanicError) {
		if p != nil {
			m.owner.failed(current, p)
			go m.run()
		}
	})
}

func (m *mailbox) next() (msg any, isSystem, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.system.n > 0:
		return m.system.pop(), true, true
	case !m.suspended && m.user.n > 0:
		return m.user.pop(), false, true
	}
	m.running = false
	return nil, false, false
}

// queue is a ring buffer that grows as needed and lets go of its memory when a
// burst has been worked off.
type queue struct {
	buf  []any
	head int
	n    int
}

const keepQueue = 256 // messages an empty queue keeps room for

func (q *queue) push(msg any) {
	if q.n == len(q.buf) {
		grown := make([]any, max(8, 2*q.n))
		copied := copy(grown, q.buf[q.head:])
		copy(grown[copied:], q.buf[:q.head])
		q.buf, q.head = grown, 0
	}
	q.buf[(q.head+q.n)%len(q.buf)] = msg
	q.n++
}

// pop returns the oldest message. The queue must not be empty.
func (q *queue) pop() any {
	msg := q.buf[q.head]
	q.buf[q.head] = nil
	q.head = (q.head + 1) % len(q.buf)
	q.n--
	if q.n == 0 && len(q.buf) > keepQueue {
		*q = queue{}
	}
	return msg
}
