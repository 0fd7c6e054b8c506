package configs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Hidden is printed in place of a secret that is set.
const Hidden = "(set, hidden)"

// maxSecretBytes is the maximum size of a file read by ReadSecretFile.
const maxSecretBytes = 64 << 10

// A Secret is a string that prints and encodes as Hidden, or as "" if it is not set.
// Compare secrets with Equal. The string is behind a pointer because fmt bypasses the
// Format method for some verbs (%p, %w) and prints the fields instead.
type Secret struct{ text *string }

// NewSecret returns text as a Secret; "" yields a secret that is not set.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: &text}
}

// Reveal returns the secret in plain text, or "" if it is not set.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsSet reports whether the secret is set.
func (s Secret) IsSet() bool { return s.text != nil }

// Equal reports whether two secrets have the same text.
func (s Secret) Equal(other Secret) bool { return s.Reveal() == other.Reveal() }

// String returns Hidden, or "" if the secret is not set.
func (s Secret) String() string {
	if s.text == nil {
		return ""
	}
	return Hidden
}

// Format writes the same as String for every verb of package fmt.
func (s Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, s.String()) }

// MarshalText returns the same as String, so that JSON, YAML and loggers hide the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ReadSecretFile reads a secret from a file with a single line. A trailing newline is
// removed. It fails if the file is empty, larger than 64 KiB, or cannot be a bearer key
// (spaces, control characters, a second line). Errors name neither the path nor the content.
func ReadSecretFile(path string) (Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return Secret{}, withoutPath(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return Secret{}, withoutPath(err)
	}
	if len(data) > maxSecretBytes {
		return Secret{}, errors.New("larger than 64 KiB")
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case text == "":
		return Secret{}, errors.New("empty")
	case strings.ContainsAny(text, "\r\n"):
		return Secret{}, errors.New("more than one line")
	}
	secret := NewSecret(text)
	if err := checkSecret(secret); err != nil {
		return Secret{}, err
	}
	return secret, nil
}

// withoutPath strips the path from an error whose message will include it anyway.
func withoutPath(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
