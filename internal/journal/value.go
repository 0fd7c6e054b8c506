package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"unicode/utf8"

	"ffmpeg-agent/messages/job"
)

// A value in the journal is text in three parts:
//
//	CRC-32C of the rest, 8 hex digits, newline
//	a document as one line of JSON, newline
//	the tail: a result byte for byte as it is sent, or compressed samples; may be empty
//
// bbolt has checksums for its two header pages only, so values have their own.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sumLen = 8

// seal encodes a value of a document and a tail.
func seal(doc any, tail []byte) ([]byte, error) {
	line, err := json.Marshal(doc) // never holds a raw newline
	if err != nil {
		return nil, err
	}
	body := make([]byte, 0, sumLen+len(line)+len(tail)+2)
	body = append(body, "00000000\n"...)
	body = append(body, line...)
	body = append(body, '\n')
	body = append(body, tail...)
	copy(body, fmt.Sprintf("%08x", crc32.Checksum(body[sumLen+1:], castagnoli)))
	return body, nil
}

// unseal checks a value and returns its parts, which are slices of it.
func unseal(value []byte) (doc, tail []byte, err error) {
	if len(value) <= sumLen || value[sumLen] != '\n' {
		return nil, nil, errors.New("value without a checksum")
	}
	body := value[sumLen+1:]
	if want := fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)); want != string(value[:sumLen]) {
		return nil, nil, errors.New("value does not match its checksum")
	}
	doc, tail, found := bytes.Cut(body, []byte{'\n'})
	if !found {
		return nil, nil, errors.New("value without a document")
	}
	return doc, tail, nil
}

// encodeRecord encodes a record without its samples, which have a bucket of their own.
func encodeRecord(rec job.Record) ([]byte, error) {
	result := rec.Result
	rec.Result = nil // becomes the tail: encoding it as JSON would change its bytes
	rec.Samples = nil
	return seal(rec, result)
}

// decodeRecord decodes a record, which does not refer to the value afterwards.
func decodeRecord(value []byte) (rec job.Record, err error) {
	doc, tail, err := unseal(value)
	if err != nil {
		return rec, err
	}
	if err := json.Unmarshal(doc, &rec); err != nil {
		return rec, fmt.Errorf("decoding record: %w", err)
	}
	if len(tail) > 0 {
		rec.Result = bytes.Clone(tail)
	}
	return rec, nil
}

// attemptID is the key of an attempt in the index: the SHA-256 of the job's id, because an
// id may be of any length, then the attempt's number, which keeps a job's attempts together
// and in order.
func attemptID(key job.Key) []byte {
	sum := jobSum(key.JobID)
	return binary.BigEndian.AppendUint64(sum, uint64(key.Attempt))
}

func jobSum(jobID string) []byte {
	if !utf8.ValidString(jobID) {
		jobID = string([]rune(jobID)) // as JSON encodes it
	}
	sum := sha256.Sum256([]byte(jobID))
	return sum[:]
}

// seqKey encodes a number as a key that sorts like the number.
func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }
