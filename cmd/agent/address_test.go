package main

import (
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestGeneratedAddressIsKept(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	dir := t.TempDir()
	first, err := generatedAddress(dir, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	second, err := generatedAddress(dir, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	other, err := generatedAddress(t.TempDir(), zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(first, "node-") || second != first || other == first {
		t.Errorf("got %s, again %s, elsewhere %s; want one kept, and another elsewhere", first, second, other)
	}
	warnings := logs.FilterLevelExact(zap.WarnLevel).All()
	if len(warnings) != 2 || !strings.Contains(warnings[0].Message, "node.address") || !strings.Contains(warnings[0].Message, "volume") {
		t.Errorf("got warnings %v, want one for each address made, with what to do", warnings)
	}
	if _, err := generatedAddress("/nowhere", zap.NewNop()); err == nil {
		t.Error("no error where the address cannot be kept")
	}
}
