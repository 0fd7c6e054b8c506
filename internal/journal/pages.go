package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// bbolt maps its file and follows what it reads there: a damaged page makes it
// panic, loop, fault, or overrun the stack, some of that on goroutines of its own
// where nobody can recover. Therefore each file is read once by ordinary reads,
// page by page, before bbolt is let near it. The same reading finds what is still
// sound in a damaged file.
//
// The format is that of bbolt's internal/common: two header pages, then pages of
// branches, leaves and the free list, in the machine's byte order.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageHeader   = 16
	elementSize  = 16
	bucketHeader = 16

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10

	noFreelist = ^uint64(0)

	minPageSize = 1 << 10
	maxPageSize = 1 << 24
	maxDepth    = 64
	maxFaults   = 16 // named; a file with one is damaged enough
)

var order = binary.NativeEndian

// header is one of the two header pages.
type header struct {
	pageSize               uint32
	root, free, pages, txn uint64
}

// readHeader reads a header page; false when it is not whole.
func readHeader(r io.ReaderAt, off int64) (header, bool) {
	var b [64]byte
	if _, err := r.ReadAt(b[:], off+pageHeader); err != nil {
		return header{}, false
	}
	sum := fnv.New64a()
	sum.Write(b[:56])
	h := header{
		pageSize: order.Uint32(b[8:]),
		root:     order.Uint64(b[16:]),
		free:     order.Uint64(b[32:]),
		pages:    order.Uint64(b[40:]),
		txn:      order.Uint64(b[48:]),
	}
	ok := order.Uint32(b[0:]) == boltMagic && order.Uint32(b[4:]) == boltVersion && order.Uint64(b[56:]) == sum.Sum64()
	return h, ok
}

// currentHeader finds the header that counts: the newer of those that are whole.
// both is false when only one was.
func currentHeader(r io.ReaderAt) (h header, both bool, err error) {
	first, ok := readHeader(r, 0)
	if !ok {
		second, err := secondHeader(r)
		return second, false, err
	}
	size := first.pageSize
	if size < minPageSize || size > maxPageSize || size&(size-1) != 0 {
		return header{}, false, fmt.Errorf("pages of %d bytes", size)
	}
	second, ok := readHeader(r, int64(size))
	switch {
	case !ok:
		return first, false, nil
	case second.pageSize != size:
		return header{}, false, errors.New("header pages differ in page size")
	case second.txn > first.txn:
		return second, true, nil
	}
	return first, true, nil
}

// secondHeader looks for the second header where the first does not tell its place.
func secondHeader(r io.ReaderAt) (header, error) {
	for size := int64(minPageSize); size <= maxPageSize; size <<= 1 {
		switch h, ok := readHeader(r, size); {
		case ok && int64(h.pageSize) == size:
			return h, nil
		case ok:
			return header{}, fmt.Errorf("pages of %d bytes", h.pageSize)
		}
	}
	return header{}, errors.New("no sound header page")
}

// walker reads all pages that a file's current header leads to.
type walker struct {
	file     io.ReaderAt
	pageSize int64
	used     []bool // pages met so far
	visit    func(bucket string, key, value []byte)
	faults   []error
}

// walk reads a file of the given size in bytes and hands each key and value in a
// bucket that it can read to visit; they are good until it returns. The faults are
// what was wrong; none means that bbolt can be trusted with the file. oneHeader tells
// that one of the header pages is spoiled, as by a write that was torn.
func walk(file io.ReaderAt, size int64, visit func(bucket string, key, value []byte)) (faults []error, oneHeader bool) {
	h, both, err := currentHeader(file)
	if err != nil {
		return []error{err}, false
	}
	w := &walker{file: file, pageSize: int64(h.pageSize), visit: visit}
	have := uint64(size / w.pageSize)
	if h.pages > have {
		w.fault("file ends after %d of %d pages", have, h.pages)
	}
	w.used = make([]bool, min(h.pages, have))
	w.tree(h.root, "", nil, nil, 0)
	if h.free != noFreelist {
		w.freelist(h.free)
	}
	return w.faults, !both
}

func (w *walker) fault(format string, args ...any) {
	if len(w.faults) < maxFaults {
		w.faults = append(w.faults, fmt.Errorf(format, args...))
	}
}

// page reads a page with what overflows from it; nil when it is not sound.
func (w *walker) page(id uint64) []byte {
	count := uint64(len(w.used))
	if id < 2 || id >= count {
		w.fault("page %d does not exist", id)
		return nil
	}
	head := make([]byte, w.pageSize)
	if _, err := w.file.ReadAt(head, int64(id)*w.pageSize); err != nil {
		w.fault("page %d: %w", id, err)
		return nil
	}
	more := uint64(order.Uint32(head[12:]))
	if order.Uint64(head) != id || more >= count-id {
		w.fault("page %d has another page's head", id)
		return nil
	}
	for i := id; i <= id+more; i++ {
		if w.used[i] {
			w.fault("page %d is used twice", i)
			return nil
		}
		w.used[i] = true
	}
	if more == 0 {
		return head
	}
	body := make([]byte, w.pageSize*int64(more+1))
	if _, err := w.file.ReadAt(body, int64(id)*w.pageSize); err != nil {
		w.fault("page %d: %w", id, err)
		return nil
	}
	return body
}

// tree reads the tree below a page; its keys lie in [low, high), nil being open.
func (w *walker) tree(id uint64, bucket string, low, high []byte, depth int) {
	if depth > maxDepth {
		w.fault("page %d lies too deep", id)
		return
	}
	if body := w.page(id); body != nil {
		w.elements(fmt.Sprintf("page %d", id), body, bucket, low, high, depth)
	}
}

// elements reads a branch or a leaf.
func (w *walker) elements(name string, body []byte, bucket string, low, high []byte, depth int) {
	flags, count := order.Uint16(body[8:]), int(order.Uint16(body[10:]))
	if flags != flagBranch && flags != flagLeaf || flags == flagBranch && count == 0 {
		w.fault("%s is neither branch nor leaf", name)
		return
	}
	if pageHeader+count*elementSize > len(body) {
		w.fault("%s has too many elements", name)
		return
	}
	type element struct {
		key, value []byte
		child      uint64
		isBucket   bool
	}
	elems := make([]element, 0, count)
	for i := range count {
		off := pageHeader + i*elementSize
		e := body[off:]
		var el element
		var pos, ksize, vsize uint64
		if flags == flagBranch {
			pos, ksize, el.child = uint64(order.Uint32(e)), uint64(order.Uint32(e[4:])), order.Uint64(e[8:])
		} else {
			pos, ksize, vsize = uint64(order.Uint32(e[4:])), uint64(order.Uint32(e[8:])), uint64(order.Uint32(e[12:]))
			el.isBucket = order.Uint32(e)&1 != 0
		}
		if ksize == 0 || pos+ksize+vsize > uint64(len(e)) {
			w.fault("%s: element %d lies outside", name, i)
			continue
		}
		el.key, el.value = e[pos:pos+ksize], e[pos+ksize:pos+ksize+vsize]
		if i == 0 && low != nil && bytes.Compare(el.key, low) < 0 ||
			len(elems) > 0 && bytes.Compare(elems[len(elems)-1].key, el.key) >= 0 ||
			high != nil && bytes.Compare(el.key, high) >= 0 {
			w.fault("%s: key %d is out of order", name, i)
		}
		elems = append(elems, el)
	}
	for i, el := range elems {
		switch {
		case flags == flagBranch:
			next := high
			if i+1 < len(elems) {
				next = elems[i+1].key
			}
			w.tree(el.child, bucket, el.key, next, depth+1)
		case el.isBucket:
			w.bucket(name, bucket+"/"+string(el.key), el.value, depth)
		default:
			w.visit(bucket, el.key, el.value)
		}
	}
}

// bucket reads a bucket from its entry: a small one lies within it.
func (w *walker) bucket(name, bucket string, entry []byte, depth int) {
	if len(entry) < bucketHeader {
		w.fault("%s: bucket %q has no head", name, bucket)
		return
	}
	if root := order.Uint64(entry); root != 0 {
		w.tree(root, bucket, nil, nil, depth+1)
		return
	}
	inline := entry[bucketHeader:]
	if len(inline) < pageHeader || order.Uint16(inline[8:]) != flagLeaf {
		w.fault("%s: bucket %q has no leaf", name, bucket)
		return
	}
	if depth >= maxDepth {
		w.fault("%s: bucket %q lies too deep", name, bucket)
		return
	}
	w.elements(fmt.Sprintf("%s: bucket %q", name, bucket), inline, bucket, nil, nil, depth+1)
}

// freelist checks that no page is both free and used.
func (w *walker) freelist(id uint64) {
	body := w.page(id)
	if body == nil {
		return
	}
	if order.Uint16(body[8:]) != flagFreelist {
		w.fault("page %d is no free list", id)
		return
	}
	count, ids := uint64(order.Uint16(body[10:])), body[pageHeader:]
	if count == 0xFFFF { // too many for the head: the first entry counts
		count, ids = order.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		w.fault("free list is longer than its page")
		return
	}
	for i := range count {
		free := order.Uint64(ids[i*8:])
		if free < 2 || free >= uint64(len(w.used)) || w.used[free] {
			w.fault("page %d is on the free list and cannot be", free)
			continue
		}
		w.used[free] = true
	}
}
