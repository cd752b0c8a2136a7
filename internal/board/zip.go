package board

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"io"
	"sync"
)

// A gzip stream of one page would need a compressor each, of some hundred kB. So what all pages are
// sent is compressed once, into a piece of a stream that looks back at nothing before it and ends
// on a byte. Such pieces make a stream in whatever order a page gets them.

var deflaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // a level that there is
	return w
}}

// A piece is what pages are sent, plain and, once somebody wants it, compressed.
type piece struct {
	plain    []byte
	once     sync.Once
	deflated []byte
}

func (p *piece) packed() []byte {
	p.once.Do(func() {
		var b bytes.Buffer
		w := deflaters.Get().(*flate.Writer)
		w.Reset(&b)
		_, _ = w.Write(p.plain) // into memory
		_ = w.Flush()
		deflaters.Put(w)
		p.deflated = b.Bytes()
	})
	return p.deflated
}

// gzipHeader is that of a stream without a name or a time.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}

// A pipe is a page's answer, compressed where the page takes that.
type pipe struct {
	w      io.Writer
	zipped bool
	begun  bool
	sum    uint32
	size   uint32
}

func (p *pipe) write(what *piece) error {
	if !p.zipped {
		_, err := p.w.Write(what.plain)
		return err
	}
	p.sum = crc32.Update(p.sum, crc32.IEEETable, what.plain)
	p.size += uint32(len(what.plain))
	if !p.begun {
		p.begun = true
		if _, err := p.w.Write(gzipHeader); err != nil {
			return err
		}
	}
	_, err := p.w.Write(what.packed())
	return err
}

// end ends the answer as a gzip stream should: with a last block, which is empty, and what it was.
func (p *pipe) end() {
	if !p.zipped || !p.begun {
		return
	}
	end := []byte{1, 0, 0, 0xff, 0xff}
	end = binary.LittleEndian.AppendUint32(end, p.sum)
	end = binary.LittleEndian.AppendUint32(end, p.size)
	_, _ = p.w.Write(end) // an error means that the page has left
}
