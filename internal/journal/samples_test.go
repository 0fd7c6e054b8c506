package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
)

// fullSamples returns the largest samples: as many points as a curve may have, of eight
// zones with random power.
func fullSamples() job.Samples {
	random := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := job.Samples{
		Curve:  energy.Curve{Start: at},
		Phases: []job.PhaseSpan{{Phase: job.PhaseRun, From: at, To: at.Add(time.Hour)}},
	}
	some := func() *energy.Microjoules {
		e := energy.Microjoules(random.Int64N(3e9))
		return &e
	}
	for i := range 8 {
		s.Curve.Zones = append(s.Curve.Zones, energy.CurveZone{ID: fmt.Sprint("intel-rapl:", i), Name: "package", Domain: energy.DomainCPU, Counted: true})
	}
	for i := range energy.MaxCurvePoints {
		p := energy.CurvePoint{From: int64(i) * 9000, To: int64(i+1) * 9000, Job: some(), Idle: some(), Rest: some()}
		for range s.Curve.Zones {
			p.Zones = append(p.Zones, some())
		}
		s.Curve.Points = append(s.Curve.Points, p)
	}
	return s
}

func TestSamplesAreRemovedWithTheirRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, err := Open(Settings{Path: path, KeepSettled: 1})
	ok(t, err)
	want := fullSamples()
	first := keyOf("first")
	if err := j.SaveSamples(first, want); !errors.Is(err, job.ErrUnknownAttempt) {
		t.Errorf("unknown attempt: got %v, want ErrUnknownAttempt", err)
	}
	for _, id := range []string{"first", "second"} {
		key := keyOf(id)
		_, err := j.Accept(lease(id, 1))
		ok(t, err)
		ok(t, j.SaveSamples(key, want))
		ok(t, j.Finish(key, []byte(`{}`), false))
		if id == "first" {
			found, err := j.Find(id)
			ok(t, err)
			if diff := cmp.Diff(&want, found[0].Samples); diff != "" {
				t.Error(diff)
			}
		}
		ok(t, j.Settle(key, job.RecordSent, ""))
	}
	ok(t, j.view("counting", func(tx *bbolt.Tx) error {
		if n := tx.Bucket(bucketSamples).Stats().KeyN; n != 1 {
			t.Errorf("got samples of %d attempts, want 1", n)
		}
		return nil
	}))
	if record(t, j, keyOf("second")).Samples != nil {
		t.Error("Record returned samples")
	}
	ok(t, j.Close())
	r, err := OpenReadOnly(path, []string{self, "inspect"})
	ok(t, err)
	defer r.Close()
	found, err := r.Find("second")
	ok(t, err)
	if len(found) != 1 || found[0].Samples == nil || len(found[0].Samples.Curve.Points) != energy.MaxCurvePoints {
		t.Errorf("got %+v, want one record with all samples", found)
	}
}

func TestUnreadableSamplesDoNotHideTheRecord(t *testing.T) {
	j := open(t, Settings{})
	_, err := j.Accept(lease("job", 1))
	ok(t, err)
	ok(t, j.update("spoiling", func(tx *bbolt.Tx) error {
		value, err := seal(nil, []byte("no gzip"))
		if err != nil {
			return err
		}
		return tx.Bucket(bucketSamples).Put(attemptID(keyOf("job")), value)
	}))
	found, err := j.Find("job")
	ok(t, err)
	if len(found) != 1 || found[0].Samples != nil {
		t.Errorf("got %+v, want one record without samples", found)
	}
}

func TestTooManySamplesAreRefused(t *testing.T) {
	s := fullSamples()
	for range 4 {
		s.Curve.Points = append(s.Curve.Points, s.Curve.Points...)
	}
	if _, err := encodeSamples(s); err == nil {
		t.Error("got no error")
	}
	packed, err := encodeSamples(fullSamples())
	ok(t, err)
	t.Logf("%d bytes for %d points of 8 zones", len(packed), energy.MaxCurvePoints)
}

func TestBaselinesAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, err := Open(Settings{Path: path})
	ok(t, err)
	if _, found, err := j.Baselines(); err != nil || found {
		t.Errorf("new journal: got baselines %v, %v", found, err)
	}
	want := energy.Baselines{Machine: "cpu", Zones: map[string]energy.Baseline{
		"intel-rapl:0": {Power: 20, Spread: 1, Seconds: 60, LearnedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
	}}
	ok(t, j.SaveBaselines(want))
	ok(t, j.Close())
	j, err = Open(Settings{Path: path})
	ok(t, err)
	defer j.Close()
	got, found, err := j.Baselines()
	ok(t, err)
	if diff := cmp.Diff(want, got); diff != "" || !found {
		t.Error(found, diff)
	}
}

// Decoding samples must neither panic nor take much memory.
func FuzzDecodeSamples(f *testing.F) {
	good, err := encodeSamples(fullSamples())
	ok(f, err)
	f.Add(good)
	for _, value := range []string{"00000000\nnull\n", "0", strings.Repeat("0", 500), "00000000\n$Ax", ",", "\x00 \xff\x01"} {
		f.Add([]byte(value))
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		for _, value := range [][]byte{packed, sealed(t, packed)} {
			if samples, err := decodeSamples(value); err == nil {
				if _, err := encodeSamples(samples); err != nil && len(packed) < maxSamples/8 {
					t.Errorf("could not encode what was decoded: %v", err)
				}
			}
		}
	})
}

// sealed adds the checksum without which the fuzzer's bytes are not decoded.
func sealed(t *testing.T, tail []byte) []byte {
	value, err := seal(nil, tail)
	ok(t, err)
	return value
}
