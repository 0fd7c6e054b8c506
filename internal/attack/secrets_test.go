//go:build attack

package attack

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ffmpeg-agent/messages/protocol"
)

// secretAttacks are jobs whose secrets others want to see in a result or the log.
var secretAttacks = []attack{{
	name: "secrets in errors", threat: "T8",
	wants: "stream keys, passwords and signed values from results and the log",
	run: func(t *testing.T) (got string) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth() // a server that repeats what it was given
			http.Error(w, r.URL.String()+" "+user+":"+password+" "+r.Header.Get("Authorization"), http.StatusForbidden)
		}))
		defer server.Close()
		host := strings.TrimPrefix(server.URL, "http://")
		b := newBed(t)
		long := strings.Repeat("a", 70)
		secrets := []string{"s3cretpassw0rd", "s3cret%2Fpassw0rd", "s3cretsignature", "s3cretstreamkey", "s3cretsegment0123456789", base64.StdEncoding.EncodeToString([]byte("user:s3cretpassw0rd"))}
		for _, p := range []map[string]any{
			{"input": "http://user:s3cretpassw0rd@" + host + "/s3cretsegment0123456789/clip.mp4?sig=s3cretsignature"},
			{"input": "http://user:s3cret%2Fpassw0rd@" + host + "/clip.mp4?sig=s3cretsignature", "input_mode": "stream"},
			{"input": "http://host/" + long + "?sig=s3cretsignature\x01"},
			{"output": "rtmp://127.0.0.1:1/live/s3cretstreamkey"},
			{"output": "rtmp:/127.0.0.1/live/s3cretstreamkey.mp4"},
			{"output_mode": "rtmp", "rtmp_url": "rtmp://127.0.0.1:1/live/s3cretstreamkey"},
			{"output_mode": "rtmp", "rtmp_url": "rtmp://user:s3cretpassw0rd@127.0.0.1:1/live/s3cretstreamkey"},
			{"output_mode": "rtmp", "stream_key": "s3cretstreamkey|"},
		} {
			for k, v := range small() {
				if _, named := p[k]; !named {
					p[k] = v
				}
			}
			result, raw := b.run(p)
			if result.Status != protocol.StatusFailed {
				t.Errorf("%v: got %s", p, result.Status)
			}
			for _, secret := range secrets {
				if strings.Contains(raw, secret) {
					got += "a result of " + secret + "; "
				}
			}
		}
		for _, secret := range append(secrets, apiKey) {
			if strings.Contains(b.log.String(), secret) {
				got += "a log line of " + secret + "; "
			}
		}
		return got
	},
}}
