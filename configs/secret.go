package configs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Hidden is what is shown in place of a secret that is set.
const Hidden = "(set, hidden)"

// maxSecretBytes is the largest key file that ReadSecretFile takes.
const maxSecretBytes = 64 << 10

// A Secret is text that must not be seen: every way of printing or encoding it
// shows Hidden, or nothing where it is not set. Compare with Equal. The text lies
// behind a pointer because fmt prints a value without asking its methods when a
// verb does not fit its type (%p, %w).
type Secret struct{ text *string }

// NewSecret hides text; the empty text is a secret that is not set.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: &text}
}

// Reveal returns the secret itself, "" when it is not set.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsSet says whether there is a secret at all.
func (s Secret) IsSet() bool { return s.text != nil }

// Equal says whether two secrets are the same text.
func (s Secret) Equal(other Secret) bool { return s.Reveal() == other.Reveal() }

// String returns Hidden, or "" when the secret is not set.
func (s Secret) String() string {
	if s.text == nil {
		return ""
	}
	return Hidden
}

// Format hides the secret from every verb of package fmt.
func (s Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, s.String()) }

// MarshalText hides the secret from JSON, YAML and whatever else encodes text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ReadSecretFile reads a secret from a file of one line. One line end at the end
// is dropped. A file that is empty, larger than 64 KiB, or holds what cannot be a
// bearer key (spaces, control characters, a second line) is an error, which names
// the file and nothing of what is in it.
func ReadSecretFile(path string) (Secret, error) {
	text, err := readSecret(path)
	if err != nil {
		return Secret{}, fmt.Errorf("reading secret file %s: %w", path, err)
	}
	return NewSecret(text), nil
}

func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", bare(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return "", bare(err)
	}
	if len(data) > maxSecretBytes {
		return "", errors.New("larger than 64 KiB")
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case text == "":
		return "", errors.New("empty")
	case strings.ContainsAny(text, "\r\n"):
		return "", errors.New("more than one line")
	}
	return text, checkSecret(NewSecret(text))
}

// bare takes the path off an error that will be reported with it anyway.
func bare(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
