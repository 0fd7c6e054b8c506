package exporters

import (
	"context"
	"net"
	"net/http"
	"net/netip"

	"go.yaml.in/yaml/v3"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// Authenticates reports whether the web configuration lets only known clients in: users with
// passwords, or clients with certificates.
func (c WebConfig) Authenticates() bool {
	var config struct {
		Users map[string]any `yaml:"basic_auth_users"`
		TLS   struct {
			ClientAuth string `yaml:"client_auth_type"`
		} `yaml:"tls_server_config"`
	}
	if yaml.Unmarshal([]byte(c.content), &config) != nil {
		return false
	}
	return len(config.Users) > 0 || config.TLS.ClientAuth == "RequireAndVerifyClientCert"
}

type accessKey struct{}

// withAccess notes in a request whether its client may see everything.
func (s *Server) withAccess(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		full := s.served.Load().Authenticates() || isLocal(r)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), accessKey{}, full)))
	})
}

// FullAccess reports whether a client may see ids, pids, paths, the master and reports: it has
// logged in as the web configuration demands, or it is on this machine. Other clients see what
// Public leaves.
func FullAccess(r *http.Request) bool {
	full, _ := r.Context().Value(accessKey{}).(bool)
	return full
}

// isLocal reports whether a request comes from this machine. One that names another host came
// from a page whose host name resolves to this machine (DNS rebinding) or through a proxy.
func isLocal(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// RequireFullAccess refuses other clients.
func RequireFullAccess(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !FullAccess(r) {
			http.Error(w, "only on this machine (localhost), or with a login (basic_auth_users in exporters.web_config)", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Public returns a status without ids, pids, paths, the master, and messages that may contain
// them.
func Public(s messages.Status) messages.Status {
	const hidden = "hidden; see /ready, or ask on the machine itself"
	hide := func(text *string) {
		if *text != "" {
			*text = hidden
		}
	}
	s.Master = ""
	s.PID, s.Cgroups, s.Configuration, s.Certificates = 0, "", nil, nil
	if s.Session != nil {
		s.Session = &messages.Session{Since: s.Session.Since}
	}
	if s.Heartbeat != nil {
		h := *s.Heartbeat
		hide(&h.Error)
		s.Heartbeat = &h
	}
	s.Checks = append([]messages.Check{}, s.Checks...)
	for i := range s.Checks {
		hide(&s.Checks[i].Reason)
	}
	s.Jobs = append([]messages.JobStatus{}, s.Jobs...)
	for i := range s.Jobs {
		s.Jobs[i].Key, s.Jobs[i].PID = job.Key{}, 0
	}
	s.Actors = append([]messages.ActorStatus{}, s.Actors...)
	for i := range s.Actors {
		s.Actors[i].Path = actorName(s.Actors[i].Path)
		hide(&s.Actors[i].LastFailure)
	}
	s.Samplers = append([]messages.SamplerHealth{}, s.Samplers...)
	for i := range s.Samplers {
		hide(&s.Samplers[i].Error)
	}
	s.Listeners = append([]messages.ListenerHealth{}, s.Listeners...)
	for i := range s.Listeners {
		hide(&s.Listeners[i].Error)
	}
	if s.Engine != nil {
		e := *s.Engine
		hide(&e.Error)
		hide(&e.Absent)
		s.Engine = &e
	}
	hide(&s.Journal.Error)
	s.Sandbox.Layers = append([]messages.SandboxLayer{}, s.Sandbox.Layers...)
	for i := range s.Sandbox.Layers {
		hide(&s.Sandbox.Layers[i].Missing)
	}
	return s
}
