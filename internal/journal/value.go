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
//	the document as one line of JSON, newline
//	the result, byte for byte as it is sent; empty while there is none
//
// bbolt checks only its own two header pages, so the sum is what tells a damaged
// value from a good one.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sumLen = 8

// seal makes a value of a document and a tail.
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

// unseal splits a value again. Both parts lie within it.
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
		return nil, nil, errors.New("value without its parts")
	}
	return doc, tail, nil
}

// encodeRecord makes the value of a record.
func encodeRecord(rec job.Record) ([]byte, error) {
	result := rec.Result
	rec.Result = nil // kept apart: as part of the document its bytes would be changed
	rec.Samples = nil
	return seal(rec, result)
}

// decodeRecord reads a record's value; nothing of the record points into it.
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

// attemptID is how the index names an attempt: SHA-256 of the job's id, so that an
// id of any length fits, then the attempt's number, so that a job's attempts stand
// together and in order.
func attemptID(key job.Key) []byte {
	sum := jobSum(key.JobID)
	return binary.BigEndian.AppendUint64(sum, uint64(key.Attempt))
}

func jobSum(jobID string) []byte {
	if !utf8.ValidString(jobID) {
		jobID = string([]rune(jobID)) // what JSON makes of it
	}
	sum := sha256.Sum256([]byte(jobID))
	return sum[:]
}

// seqKey is a number as a key that sorts like it.
func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }
