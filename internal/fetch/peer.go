package fetch

import (
	"net"
	"sync"

	"go.uber.org/zap"
)

// userListener accepts the TCP connections of one user of this machine, and of root, and closes
// those of others.
type userListener struct {
	net.Listener
	user   int // its id
	log    *zap.Logger
	logged sync.Once
}

func (l *userListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		user, err := peerUser(conn)
		if err == nil && (user == 0 || user == l.user) {
			return conn, nil
		}
		_ = conn.Close()
		l.logged.Do(func() {
			l.log.Warn("refused a connection that is not FFmpeg's to the relay of an input", zap.Int("uid", user), zap.Int("expected_uid", l.user), zap.Error(err))
		})
	}
}
