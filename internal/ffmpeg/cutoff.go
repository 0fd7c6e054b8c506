package ffmpeg

import (
	"encoding/binary"
	"io"
	"math/bits"
)

// maxBoxes bounds the boxes of a file that are looked at; a fragmented film has thousands.
const maxBoxes = 1 << 17

// cutOff reports whether a file of a size ends before the media that its container declares,
// and how many bytes it lacks (0: not known): the boxes of MP4 (ISO/IEC 14496-12, 4.2), the
// chunks of AVI (RIFF), the segment of Matroska (RFC 8794, RFC 9559), the last tag of FLV.
func cutOff(f io.ReaderAt, size int64) (lacks int64, cut bool) {
	var head [16]byte
	n, _ := f.ReadAt(head[:], 0)
	switch b := head[:n]; {
	case n < len(head):
		return 0, false
	case string(b[:4]) == "RIFF":
		lacks = cutRIFF(f, size)
	case binary.BigEndian.Uint32(b) == 0x1A45DFA3:
		lacks = cutEBML(f, size)
	case string(b[4:8]) == "ftyp":
		lacks = cutMP4(f, size)
	case string(b[:3]) == "FLV":
		return 0, cutFLV(f, size)
	}
	return lacks, lacks > 0
}

// cutFLV: the file does not end with a tag and its size (Adobe FLV 10.1, E.3).
func cutFLV(f io.ReaderAt, size int64) bool {
	var last, head [4]byte
	if n, _ := f.ReadAt(last[:], size-int64(len(last))); n < len(last) {
		return false
	}
	length := int64(binary.BigEndian.Uint32(last[:]))
	if n, _ := f.ReadAt(head[:], size-int64(len(last))-length); n < len(head) {
		return true
	}
	const header = 11 // of a tag, bytes
	return int64(binary.BigEndian.Uint32(head[:])&0xFFFFFF)+header != length
}

func cutMP4(f io.ReaderAt, size int64) int64 {
	var head [16]byte
	at := int64(0)
	for range maxBoxes {
		if n, _ := f.ReadAt(head[:], at); n < 8 {
			return 0
		}
		length, kind := int64(binary.BigEndian.Uint32(head[:])), string(head[4:8])
		if length == 1 {
			length = int64(binary.BigEndian.Uint64(head[8:]))
		}
		if length < 8 { // 0: up to the end of the file
			return 0
		}
		if end := at + length; end > size || end < at {
			if kind == "mdat" || kind == "moof" || kind == "moov" {
				return max(1, end-size)
			}
			return 0
		}
		at += length
	}
	return 0
}

func cutRIFF(f io.ReaderAt, size int64) int64 {
	var head [12]byte
	at := int64(0)
	for range maxBoxes {
		if n, _ := f.ReadAt(head[:], at); n < len(head) {
			return 0
		}
		length, kind, form := int64(binary.LittleEndian.Uint32(head[4:])), string(head[:4]), string(head[8:])
		switch {
		case kind == "RIFF" && (form == "AVI " || form == "AVIX"): // look into it
			at += int64(len(head))
			continue
		case kind == "LIST" && form == "movi" && at+8+length > size && length > 0 && length < 1<<32-1: // else not closed by its writer
			return at + 8 + length - size
		}
		at += 8 + length + length&1
	}
	return 0
}

func cutEBML(f io.ReaderAt, size int64) int64 {
	at, known := skipElement(f, 0)
	if !known {
		return 0
	}
	if end, known := skipElement(f, at); known && end > size {
		return end - size
	}
	return 0
}

// skipElement returns the end of the EBML element at an offset; false where its size is not
// known.
func skipElement(f io.ReaderAt, at int64) (end int64, known bool) {
	var head [12]byte
	if n, _ := f.ReadAt(head[:], at); n < len(head) || head[0] == 0 {
		return 0, false
	}
	id := bits.LeadingZeros8(head[0]) + 1
	if id > 4 || head[id] == 0 {
		return 0, false
	}
	width := bits.LeadingZeros8(head[id]) + 1
	length := int64(head[id]) & (1<<(8-width) - 1)
	unknown := length == 1<<(8-width)-1
	for _, b := range head[id+1 : id+width] {
		length = length<<8 | int64(b)
		unknown = unknown && b == 0xFF
	}
	return at + int64(id+width) + length, !unknown
}
