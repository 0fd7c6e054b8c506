package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"ffmpeg-agent/internal/fetch"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

const (
	expiryWarning = 30 * 24 * time.Hour // before a certificate expires
	skewWarning   = 5 * time.Second     // the master's Date header has a resolution of one second
	skewFailure   = 5 * time.Minute
)

const setClock = "sudo timedatectl set-ntp true"

func checkProxy(context.Context, *examination) []finding {
	if _, err := fetch.ProxyFromEnvironment(); err != nil {
		return []finding{failed("correct or unset the variable where the agent is started", "%v", err)}
	}
	return nil
}

// checkMaster asks the master for its health: address, connection, TLS.
func checkMaster(ctx context.Context, e *examination) []finding {
	client, err := e.master()
	if err != nil {
		return []finding{failed(e.change("master.url", "http://HOST:PORT or https://HOST:PORT"), "%v", err)}
	}
	if e.health, err = client.Health(ctx); err != nil {
		return []finding{failed(e.masterFix(err), "%v", err)}
	}
	findings := []finding{passing("%s answers", e.cfg.Master.URL)}
	return append(findings, e.certificateFindings()...)
}

// masterFix is what to do about a master that cannot be reached.
func (e *examination) masterFix(err error) string {
	u, parseErr := url.Parse(e.cfg.Master.URL)
	if parseErr != nil {
		return e.change("master.url", "http://HOST:PORT or https://HOST:PORT")
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	address := net.JoinHostPort(u.Hostname(), port)
	var (
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		name      x509.HostnameError
		dns       *net.DNSError
		answer    *protocol.Error
	)
	show := fmt.Sprintf("openssl s_client -connect %s </dev/null 2>/dev/null | openssl x509 -noout -subject -issuer -dates -ext subjectAltName", address)
	switch {
	case errors.As(err, &authority):
		return e.change("master.ca", "the certificate of the CA that signed the master's") + "; the master's is shown by: " + show
	case errors.As(err, &name):
		return e.change("master.url", "a host name that the certificate is for, as shown by: "+show)
	case errors.As(err, &invalid):
		return "renew the master's certificate, or correct this clock (" + setClock + "); dates: " + show
	case strings.Contains(err.Error(), "TLS 1.2"):
		return "enable TLS 1.2 or 1.3 on the master or the proxy before it; what it offers is shown by: openssl s_client -connect " + address
	case errors.Is(err, http.ErrSchemeMismatch):
		return e.change("master.url", "http://"+u.Host)
	case strings.Contains(err.Error(), "must start with https://"):
		return e.change("master.url", "https://"+u.Host)
	case errors.As(err, &dns):
		return fmt.Sprintf("getent hosts %s; then %s", u.Hostname(), e.change("master.url", "a host name that resolves"))
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("start the master on %s (on that host: ss -ltn 'sport = :%s'), or %s", address, port, e.change("master.url", "the URL of one that runs"))
	case errors.As(err, &answer) && answer.Status != 0:
		return "curl -v " + e.cfg.Master.URL + "/health   # is this a master?"
	}
	return fmt.Sprintf("nc -vz %s %s   # check the address, routes and firewalls between this host and the master", u.Hostname(), port)
}

// certificateFindings judge the connection to a master that answered.
func (e *examination) certificateFindings() []finding {
	state := e.health.TLS
	if state == nil {
		u, err := url.Parse(e.cfg.Master.URL)
		if err != nil || isLoopback(u.Hostname()) || !e.cfg.Master.APIKey.IsSet() && e.cfg.Master.APIKeyFile == "" {
			return nil
		}
		return []finding{warning(e.change("master.url", "an https:// URL of the master"), "the API key crosses the network unencrypted: the URL starts with http://").named("encryption")}
	}
	const name = "master certificate"
	var findings []finding
	if len(state.PeerCertificates) > 0 {
		findings = append(findings, expiryFinding(state.PeerCertificates[0], "renew it on the master's host", time.Now()).named(name))
	}
	if e.cfg.Master.InsecureSkipVerify {
		findings = append(findings, warning(e.change("master.insecure_skip_verify", "false, and master.ca: the CA's certificate"), "the master's certificate is not verified: anybody on the way can be the master").named(name))
	}
	findings[0].Message += ", " + tls.VersionName(state.Version)
	return findings
}

// expiryFinding judges when a certificate expires; renew is how to renew it.
func expiryFinding(cert *x509.Certificate, renew string, now time.Time) finding {
	left := cert.NotAfter.Sub(now)
	switch {
	case left <= 0:
		return failed(renew, "expired on %s, according to this machine's clock", clock(cert.NotAfter))
	case now.Before(cert.NotBefore):
		return failed(setClock, "not valid before %s, according to this machine's clock", clock(cert.NotBefore))
	case left < expiryWarning:
		return warning(renew, "expires in %s, on %s", span(left), clock(cert.NotAfter))
	}
	return passing("valid until %s", clock(cert.NotAfter))
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func checkClientCertificate(_ context.Context, e *examination) []finding {
	m := e.cfg.Master
	if m.Cert == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(m.Cert, m.Key)
	if err == nil && pair.Leaf == nil {
		pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0])
	}
	if err != nil {
		return []finding{failed(e.change("master.cert", "a PEM certificate, and its key in master.key"), "%v", err)}
	}
	return []finding{expiryFinding(pair.Leaf, fmt.Sprintf("renew %s and %s; they are read again without a restart", m.Cert, m.Key), time.Now())}
}

// checkMasterIsElsewhere is the check that the agent makes before it starts.
func checkMasterIsElsewhere(ctx context.Context, e *examination) []finding {
	switch {
	case !isThisHost(ctx, e.cfg.Master.URL):
		return nil
	case e.cfg.AllowMasterAsWorker:
		return []finding{passing("the master is this very host, which allow_master_as_worker allows")}
	}
	return []finding{failed("run the agent on another machine or, for development, start it with --allow-master-as-worker; "+e.change("master.url", "the master's host, if it is another one"),
		"the master %s is this very host, and the agent refuses to start", e.cfg.Master.URL)}
}

// checkClock compares this machine's clock with the master's.
func checkClock(_ context.Context, e *examination) []finding {
	if e.health.Clock.IsZero() {
		return nil
	}
	// The master's clock was cut to seconds.
	skew := e.health.At.Sub(e.health.Clock.Add(500 * time.Millisecond))
	text := "ahead of"
	if skew < 0 {
		skew, text = -skew, "behind"
	}
	switch {
	case skew >= skewFailure:
		return []finding{failed(setClock, "this machine's clock is %s %s the master's: certificates and the times of results are wrong", span(skew), text)}
	case skew >= skewWarning:
		return []finding{warning(setClock, "this machine's clock is %s %s the master's", span(skew), text)}
	}
	return []finding{passing("agrees with the master's")}
}

// checkSecretFiles looks for secrets that cannot be read, and for those that everybody can.
func checkSecretFiles(_ context.Context, e *examination) []finding {
	var findings []finding
	if p := e.cfg.keyProblem; p != nil {
		findings = append(findings, failed(e.keyFix(), "no API key for the master: %s", p))
	}
	exposed := exposedSecrets(e.cfg.Config)
	for _, key := range slices.Sorted(maps.Keys(exposed)) {
		findings = append(findings, warning(restrictCommand(exposed[key]), "every user of this machine has access to %s (%s)", exposed[key], key))
	}
	if m := e.cfg.Master; findings == nil && (m.APIKeyFile != "" || m.Key != "") {
		findings = append(findings, passing("closed to other users"))
	}
	return findings
}

// keyFix is what to do about the key's file.
func (e *examination) keyFix() string {
	if path := e.cfg.Master.APIKeyFile; isForbidden(path) {
		return allowReading(path, e.loaded.File)
	}
	return writeKey(e.cfg.Master.APIKeyFile)
}

// writeKey is the command that writes the master's key into its file.
func writeKey(path string) string {
	return "sudo install -D -m 640 -g ffmpeg /dev/stdin " + path + "   # paste the key, then Enter and Ctrl-D; it is read without a restart"
}

// checkKey makes a call that needs the key.
func checkKey(ctx context.Context, e *examination) []finding {
	err := e.client.Nodes(ctx, func(n protocol.Node) { e.nodes = append(e.nodes, n) })
	switch {
	case err == nil && !e.cfg.Master.APIKey.IsSet() && e.cfg.Master.APIKeyFile == "":
		return []finding{passing("the master needs none")}
	case err == nil:
		return []finding{passing("the master accepts it")}
	case protocol.KindOf(err) != protocol.Unauthorized:
		return []finding{failed("curl -v "+e.cfg.Master.URL+"/nodes   # the master is up, and this call fails; see its log", "%v", err)}
	case e.cfg.Master.APIKeyFile != "":
		return []finding{failed(e.keyFix(), "%v", err)}
	case e.cfg.Master.APIKey.IsSet():
		return []finding{failed(e.change("master.api_key", "a key that the master accepts"), "%v", err)}
	}
	const usual = "/etc/ffmpeg-agent/key"
	return []finding{failed(writeKey(usual)+"; then "+e.change("master.api_key_file", usual), "%v", err)}
}

// session is that of the running agent, else the one that its journal has.
func (e *examination) session() *messages.Session {
	if e.agent != nil {
		return e.agent.Session
	}
	return e.saved
}

// checkNode looks for this node in the master's list.
func checkNode(_ context.Context, e *examination) []finding {
	session, address := e.session(), e.address()
	var listed *protocol.Node
	for i := range e.nodes {
		if n := &e.nodes[i]; n.Address == address && listed == nil || session != nil && n.ID == session.NodeID {
			listed = n
		}
	}
	register := "agent --register --master " + e.cfg.Master.URL + "   # once, or register: true in " + e.configFile()
	switch {
	case listed == nil && e.agent != nil && session == nil:
		return []finding{failed("journalctl -u ffmpeg-agent   # the log names the reason: could not register", "%s is not registered with the master: %s", address, e.agentCheck("registered"))}
	case listed == nil && e.agent != nil:
		return []finding{warning("agent status   # the heartbeat: the agent registers again once it is not answered", "the master does not list %s; the agent registers again within a minute", address)}
	case listed == nil && session == nil && !e.cfg.Register:
		return []finding{failed(register, "%s is not registered, and the agent does not register without register: true", address)}
	case listed == nil:
		return []finding{passing("%s is not registered yet; the agent registers when it starts", address)}
	case e.agent == nil && session == nil && !e.cfg.Register:
		return []finding{failed(register, "the master lists %s, but %s has no saved session and the agent does not register without register: true", address, e.cfg.DataDir)}
	case e.agent != nil && listed.Status == "offline":
		return []finding{warning("agent status   # are heartbeats answered?", "the master lists %s as offline", listed.Address)}
	case e.agent != nil && len(e.agent.Jobs) == 0 && listed.CurrentJobID != "":
		return []finding{warning("agent jobs; then cancel it at the master: curl -X POST "+e.cfg.Master.URL+"/jobs/"+url.PathEscape(listed.CurrentJobID)+"/cancel",
			"the master lists %s as busy with job %s, which the agent does not run", listed.Address, listed.CurrentJobID)}
	}
	return []finding{passing("%s is listed as %s, %s", listed.Address, listed.ID, listed.Status)}
}

// address is that of the node; "auto" where it has not been generated yet.
func (e *examination) address() string {
	if e.agent != nil && e.agent.Address != "" {
		return e.agent.Address
	}
	if text, err := os.ReadFile(filepath.Join(e.cfg.DataDir, addressFile)); err == nil && e.cfg.Node.Address == "auto" {
		return strings.TrimSpace(string(text))
	}
	return e.cfg.Node.Address
}

func (e *examination) configFile() string {
	if e.loaded.File != "" {
		return e.loaded.File
	}
	return "/etc/ffmpeg-agent/agent.yaml"
}

// agentCheck is why a check of the running agent fails.
func (e *examination) agentCheck(name string) string {
	for _, c := range e.agent.Checks {
		if c.Name == name {
			return c.Reason
		}
	}
	return unknown
}

// checkTakingJobs reports why a running agent takes no jobs.
func checkTakingJobs(_ context.Context, e *examination) []finding {
	if e.agent == nil {
		return nil
	}
	fixes := map[string]string{
		"disk":       "df -h " + e.cfg.DataDir + "   # free space, or lower jobs.min_free_disk",
		"ffmpeg":     "sudo apt-get install ffmpeg   # or set hardware.ffmpeg",
		"journal":    "df -h " + e.cfg.DataDir + "   # free space; results wait in memory",
		"registered": "see the checks of the master",
		"master":     "see the checks of the master",
		"key":        "see the check of the key",
	}
	var findings []finding
	for _, c := range e.agent.Checks {
		if !c.OK() {
			fix := fixes[c.Name]
			if fix == "" {
				fix = "agent status"
			}
			findings = append(findings, failed(fix, "no jobs are taken: %s: %s", c.Name, c.Reason))
		}
	}
	if e.agent.Draining {
		findings = append(findings, failed("agent drain --undo", "no jobs are taken: the agent is draining"))
	}
	if findings == nil {
		return []finding{passing("%d of %d slots in use", len(e.agent.Jobs), e.agent.Slots)}
	}
	return findings
}

// checkWaitingJobs compares what waits at the master with what the agent does.
func checkWaitingJobs(ctx context.Context, e *examination) []finding {
	waiting := 0
	err := e.client.Jobs(ctx, func(j protocol.Job) {
		switch j.Status {
		case protocol.StatusPending, protocol.StatusQueued, protocol.StatusRetrying:
			waiting++
		}
	})
	switch {
	case err != nil:
		return []finding{warning("curl -v "+e.cfg.Master.URL+"/jobs", "%v", err)}
	case waiting == 0:
		return []finding{passing("none at the master")}
	case e.agent != nil && len(e.agent.Jobs) == 0 && time.Since(e.agent.StartedAt) > time.Minute:
		return []finding{warning("curl "+e.cfg.Master.URL+"/jobs   # compare what they need (GPU, codec, labels, queue) with the node's facts: curl "+e.cfg.Master.URL+"/nodes",
			"%s at the master, and this idle node is given none", plural(waiting, "waiting job"))}
	}
	return []finding{passing("%d at the master", waiting)}
}
