package ffmpeg

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
)

// Bounds of a log in memory, 64 KiB together: its beginning, which names streams and
// encoders, and its end, which shows why FFmpeg failed.
const (
	logHead = 16 << 10
	logTail = 48 << 10
)

// logBuffer keeps the first and the last bytes written to it. Its zero value is ready.
type logBuffer struct {
	mu      sync.Mutex
	head    []byte
	tail    []byte // a ring once full
	next    int    // where the ring continues
	dropped int64
}

// Write never fails.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(p)
	if room := logHead - len(b.head); room > 0 {
		take := min(room, len(p))
		b.head = append(b.head, p[:take]...)
		p = p[take:]
	}
	if over := len(p) - logTail; over > 0 {
		b.dropped += int64(over)
		p = p[over:]
	}
	if room := logTail - len(b.tail); room > 0 {
		take := min(room, len(p))
		b.tail = append(b.tail, p[:take]...)
		p = p[take:]
	}
	for len(p) > 0 {
		copied := copy(b.tail[b.next:], p)
		b.next = (b.next + copied) % logTail
		b.dropped += int64(copied)
		p = p[copied:]
	}
	return n, nil
}

// String returns what was kept as valid UTF-8, with a line that counts the bytes left
// out. Lines that were cut in two are left out as well: half a secret would not be
// recognised.
func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	head := b.head
	tail := append(append([]byte(nil), b.tail[b.next:]...), b.tail[:b.next]...)
	if b.dropped == 0 {
		return strings.ToValidUTF8(string(head)+string(tail), "\uFFFD")
	}
	dropped := b.dropped
	if end := bytes.LastIndexAny(head, "\r\n"); end >= 0 {
		dropped += int64(len(head) - end - 1)
		head = head[:end+1]
	}
	if begin := bytes.IndexAny(tail, "\r\n"); begin >= 0 {
		dropped += int64(begin + 1)
		tail = tail[begin+1:]
	}
	return strings.ToValidUTF8(fmt.Sprintf("%s\n… %d bytes left out …\n%s", head, dropped, tail), "\uFFFD")
}

func (b *logBuffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.head, b.tail, b.next, b.dropped = nil, nil, 0, 0
}
