package ffmpeg

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
)

// The bounds of a log kept in memory, 64 KiB together: how FFmpeg began, which
// names streams and encoders, and how it ended, which says why.
const (
	logHead = 16 << 10
	logTail = 48 << 10
)

// headTail keeps the first and the last bytes written to it. It never refuses a
// write. Its zero value is ready.
type headTail struct {
	mu   sync.Mutex
	head []byte
	tail []byte // a ring once full
	next int    // where the ring goes on
	lost int64
}

func (h *headTail) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(p)
	if room := logHead - len(h.head); room > 0 {
		take := min(room, len(p))
		h.head = append(h.head, p[:take]...)
		p = p[take:]
	}
	if over := len(p) - logTail; over > 0 {
		h.lost += int64(over)
		p = p[over:]
	}
	if room := logTail - len(h.tail); room > 0 {
		take := min(room, len(p))
		h.tail = append(h.tail, p[:take]...)
		p = p[take:]
	}
	for len(p) > 0 {
		took := copy(h.tail[h.next:], p)
		h.next = (h.next + took) % logTail
		h.lost += int64(took)
		p = p[took:]
	}
	return n, nil
}

// String returns what was kept as valid UTF-8, with a line that says how much is
// missing. Lines that were cut in two are left out: half a secret is not recognised.
func (h *headTail) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	head := h.head
	tail := append(append([]byte(nil), h.tail[h.next:]...), h.tail[:h.next]...)
	if h.lost == 0 {
		return strings.ToValidUTF8(string(head)+string(tail), "\uFFFD")
	}
	lost := h.lost
	if end := bytes.LastIndexAny(head, "\r\n"); end >= 0 {
		lost += int64(len(head) - end - 1)
		head = head[:end+1]
	}
	if begin := bytes.IndexAny(tail, "\r\n"); begin >= 0 {
		lost += int64(begin + 1)
		tail = tail[begin+1:]
	}
	return strings.ToValidUTF8(fmt.Sprintf("%s\n… %d bytes left out …\n%s", head, lost, tail), "\uFFFD")
}

// reset forgets all that was written.
func (h *headTail) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.head, h.tail, h.next, h.lost = nil, nil, 0, 0
}
