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

// MaxSamples is the most that the samples of one attempt may take in the journal, in
// bytes; they go with their record.
const MaxSamples = 128 << 10

// maxSamplesText bounds what samples are unpacked to, in bytes.
const maxSamplesText = 4 << 20

// SaveSamples keeps what was recorded of an attempt's power. The last that were saved
// count.
func (j *Journal) SaveSamples(key job.Key, samples job.Samples) error {
	value, err := encodeSamples(samples)
	if err != nil {
		return j.fail(fmt.Sprintf("saving samples of %.100s", key), err)
	}
	return j.write("saving samples of", key, func(tx *bbolt.Tx) error {
		if tx.Bucket(bucketIndex).Get(attemptID(key)) == nil {
			return job.ErrUnknownAttempt
		}
		return tx.Bucket(bucketSamples).Put(attemptID(key), value)
	})
}

// samplesOf are the samples of an attempt; nil where there are none that can be read:
// a record is good without them.
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
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if packed.Len() > MaxSamples {
		return nil, fmt.Errorf("%d bytes of samples, more than %d", packed.Len(), MaxSamples)
	}
	return seal(nil, packed.Bytes())
}

func decodeSamples(value []byte) (samples job.Samples, err error) {
	_, packed, err := unseal(value)
	if err != nil {
		return samples, err
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return samples, err
	}
	return samples, json.NewDecoder(io.LimitReader(r, maxSamplesText)).Decode(&samples)
}

// SaveBaselines keeps what was learned of the idle machine.
func (j *Journal) SaveBaselines(b energy.Baselines) error {
	return j.update("saving the idle baselines", func(tx *bbolt.Tx) error {
		value, err := seal(b, nil)
		if err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put(keyBaselines, value)
	})
}

// Baselines returns what was learned of the idle machine, false when nothing was saved
// that can be read.
func (r *Reader) Baselines() (b energy.Baselines, found bool, err error) {
	err = r.view("reading the idle baselines", func(tx *bbolt.Tx) error {
		doc, _, err := unseal(tx.Bucket(bucketMeta).Get(keyBaselines))
		found = err == nil && json.Unmarshal(doc, &b) == nil
		return nil
	})
	return b, found, err
}
