package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/zap"
)

// addressFile keeps the generated address of a node in data_dir.
const addressFile = "node-address"

// generatedAddress is the address of a node whose host name does not identify it. It is made
// once and kept in dataDir.
func generatedAddress(dataDir string, log *zap.Logger) (string, error) {
	path := filepath.Join(dataDir, addressFile)
	text, err := os.ReadFile(path)
	address := strings.TrimSpace(string(text))
	switch {
	case err == nil && address != "":
		log.Info("using the generated address of this node", zap.String("address", address), zap.String("file", path))
		return address, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("reading the address of this node: %w", err)
	}
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails
	address = "node-" + hex.EncodeToString(id[:])
	if err := writeDurably(path, address+"\n"); err != nil {
		return "", fmt.Errorf("keeping the address of this node: %w", err)
	}
	log.Warn("the host name does not identify this node, so an address was generated: set node.address, or keep data_dir, "+
		"in a container on a volume; without either the master gets a new node at each start",
		zap.String("address", address), zap.String("file", path))
	return address, nil
}

// writeDurably makes a file that is complete or absent, also after a power loss.
func writeDurably(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close(), os.Rename(f.Name(), path))
}
