package exporters

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v3"
)

// WebConfig is the content of a Prometheus web configuration file (TLS, basic auth) with the
// certificates that it names. The zero value is none: plain HTTP for everybody.
type WebConfig struct {
	// Files are the file and those that it names.
	Files   []string
	content string // YAML, with the certificates in it
}

// LoadWebConfig reads and validates a web configuration file. "" yields the zero value. Errors
// name the line of invalid YAML, but not the file, and contain no password.
func LoadWebConfig(path string) (WebConfig, error) {
	if path == "" {
		return WebConfig{}, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return WebConfig{}, withoutPath(err)
	}
	if err := web.Validate(path); err != nil {
		return WebConfig{}, err
	}
	var config map[string]any
	if err := yaml.Unmarshal(text, &config); err != nil {
		return WebConfig{}, err
	}
	c := WebConfig{Files: []string{path}}
	if err := c.include(config, filepath.Dir(path)); err != nil {
		return WebConfig{}, err
	}
	content, err := yaml.Marshal(config)
	if err != nil {
		return WebConfig{}, fmt.Errorf("encoding it with its certificates: %w", err)
	}
	c.content = string(content)
	return c, nil
}

// include replaces the names of certificate files, which are relative to dir, by their content.
func (c *WebConfig) include(config map[string]any, dir string) error {
	tls, _ := config["tls_server_config"].(map[string]any)
	for byName, inline := range map[string]string{"cert_file": "cert", "key_file": "key", "client_ca_file": "client_ca"} {
		name, _ := tls[byName].(string)
		if name == "" {
			continue
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		pem, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("%s: %w", byName, err)
		}
		c.Files = append(c.Files, name)
		delete(tls, byName)
		tls[inline] = string(pem)
	}
	return nil
}

// IsSet reports whether there is a web configuration.
func (c WebConfig) IsSet() bool { return c.content != "" }

// ID identifies the content; "" if there is no web configuration.
func (c WebConfig) ID() string {
	if !c.IsSet() {
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(c.content)))
}

// open returns the path of a file with the content, until it is closed. The toolkit reads its
// file at each request, so it gets a deleted one, which no other process can change.
func (c WebConfig) open() (path string, closeFile func(), err error) {
	if !c.IsSet() {
		return "", func() {}, nil
	}
	file, err := os.CreateTemp("", "web-config-")
	if err != nil {
		return "", nil, fmt.Errorf("copying the web configuration: %w", err)
	}
	_, err = file.WriteString(c.content)
	if err := errors.Join(err, os.Remove(file.Name())); err != nil {
		file.Close()
		return "", nil, fmt.Errorf("copying the web configuration: %w", err)
	}
	return "/proc/self/fd/" + strconv.Itoa(int(file.Fd())), func() { file.Close() }, nil
}

// withoutPath strips the path from an error whose message will include it anyway.
func withoutPath(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
