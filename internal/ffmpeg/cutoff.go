package ffmpeg

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/bits"
)

// maxBoxes bounds the boxes of a file that are looked at; a fragmented film has thousands.
const maxBoxes = 1 << 17

// cutOff reports whether a file of a size ends before the media that its container declares,
// and how many bytes it lacks (0: not known): the boxes of MP4 (ISO/IEC 14496-12, 4.2), the
// chunks of AVI (RIFF), the segment of Matroska (RFC 8794, RFC 9559), the last tag of FLV,
// the size of ASF, the frames of IVF, the trailer of GIF.
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
	case string(b) == asfHeader:
		lacks = cutASF(f, size)
	case string(b[:3]) == "FLV":
		return 0, cutFLV(f, size)
	case string(b[:4]) == "DKIF":
		return 0, cutIVF(f, size)
	case string(b[:4]) == "GIF8":
		return 0, cutGIF(f, size)
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

// Identifiers of ASF objects (ASF specification 1.2, 10.1 and 10.2).
const (
	asfHeader         = "\x30\x26\xB2\x75\x8E\x66\xCF\x11\xA6\xD9\x00\xAA\x00\x62\xCE\x6C"
	asfFileProperties = "\xA1\xDC\xAB\x8C\x47\xA9\xCF\x11\x8E\xE4\x00\xC0\x0C\x20\x53\x65"
)

func cutASF(f io.ReaderAt, size int64) int64 {
	const objects = 30 // offset of the header's first object
	var head [92]byte
	for at := int64(objects); ; {
		if n, _ := f.ReadAt(head[:], at); n < len(head) {
			return 0
		}
		if string(head[:16]) == asfFileProperties {
			whole, broadcast := int64(binary.LittleEndian.Uint64(head[40:])), head[88]&1 != 0
			if broadcast || whole < size { // the size is not valid
				return 0
			}
			return whole - size
		}
		length := int64(binary.LittleEndian.Uint64(head[16:]))
		if length < 24 || length > 1<<20 {
			return 0
		}
		at += length
	}
}

// cutIVF: the file ends within a frame, or before the frames that its header counts.
func cutIVF(f io.ReaderAt, size int64) bool {
	var head [32]byte
	if n, _ := f.ReadAt(head[:], 0); n < len(head) {
		return false
	}
	at, want := int64(binary.LittleEndian.Uint16(head[6:])), binary.LittleEndian.Uint32(head[24:])
	for frames := uint32(0); frames < maxBoxes; frames++ {
		if at == size {
			return frames < want && want != 1<<32-1 // which a writer that cannot seek leaves
		}
		if n, _ := f.ReadAt(head[:12], at); n < 12 {
			return true
		}
		if at += 12 + int64(binary.LittleEndian.Uint32(head[:])); at > size {
			return true
		}
	}
	return false
}

// cutGIF: the file does not end with a trailer, which zeros may follow.
func cutGIF(f io.ReaderAt, size int64) bool {
	tail := make([]byte, min(size, 512))
	n, _ := f.ReadAt(tail, size-int64(len(tail)))
	end := bytes.TrimRight(tail[:n], "\x00")
	return len(end) > 0 && end[len(end)-1] != 0x3B
}
