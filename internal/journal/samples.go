package journal

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"

	"go.etcd.io/bbolt"
)

// The samples of one attempt are at most maxSamples compressed and are read up to
// maxSamplesText decompressed, in bytes.
const (
	maxSamples     = 128 << 10
	maxSamplesText = 4 << 20
)

// SaveSamples stores an attempt's power over time beside its record. The last call counts.
func (j *Journal) SaveSamples(key job.Key, samples job.Samples) error {
	value, err := encodeSamples(samples)
	if err != nil {
		return j.wrap(fmt.Sprintf("saving samples of %.100s", key), err)
	}
	return j.write("saving samples of", key, func(tx *bbolt.Tx) error {
		previous, known, err := find(tx, key)
		if err != nil {
			return err
		}
		if !known {
			return job.ErrUnknownAttempt
		}
		if err := tx.Bucket(bucketSamples).Put(attemptID(key), value); err != nil {
			return err
		}
		return j.replace(tx, previous.rec, &previous)
	})
}

// samplesOf returns the samples of an attempt, nil if there are none or they are unreadable:
// the record is useful without them.
func samplesOf(tx *bbolt.Tx, key job.Key) *job.Samples {
	b := tx.Bucket(bucketSamples)
	if b == nil {
		return nil
	}
	value := b.Get(attemptID(key))
	if value == nil {
		return nil
	}
	samples, err := decodeSamples(value)
	if err != nil {
		return nil
	}
	return &samples
}

func encodeSamples(samples job.Samples) ([]byte, error) {
	text, err := json.Marshal(samples)
	if err != nil {
		return nil, err
	}
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if compressed.Len() > maxSamples {
		return nil, fmt.Errorf("%d bytes of samples, more than %d", compressed.Len(), maxSamples)
	}
	return seal(nil, compressed.Bytes())
}

func decodeSamples(value []byte) (samples job.Samples, err error) {
	_, compressed, err := unseal(value)
	if err != nil {
		return samples, err
	}
	r, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return samples, err
	}
	return samples, json.NewDecoder(io.LimitReader(r, maxSamplesText)).Decode(&samples)
}

// SaveBaselines stores the idle baselines.
func (j *Journal) SaveBaselines(b energy.Baselines) error {
	return j.putMeta("saving the idle baselines", keyBaselines, b)
}

// Baselines returns the idle baselines, false if there are none or they are unreadable.
func (r *Reader) Baselines() (b energy.Baselines, found bool, err error) {
	found, err = r.getMeta("reading the idle baselines", keyBaselines, &b)
	return b, found, err
}
