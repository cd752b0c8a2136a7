package isdp

import (
	"bytes"
	"io"
	"sync"
)

// bodies are the buffers of answers that nobody looks at any more. A sweep reads thousands of
// answers and keeps few: without this it would make more garbage than rollcall has memory.
var bodies buffers

type buffers struct{ pool sync.Pool }

// keptBody is the largest buffer that is kept, in bytes: some pages are large, most are not.
const keptBody = 256 << 10

// read reads all of in. size is how much that will be, if not negative.
func (b *buffers) read(in io.Reader, size int64) ([]byte, error) {
	var buf []byte
	if kept, ok := b.pool.Get().(*[]byte); ok {
		buf = *kept
	}
	w := bytes.NewBuffer(buf[:0])
	if size > 0 {
		w.Grow(int(size) + bytes.MinRead)
	}
	_, err := w.ReadFrom(in)
	return w.Bytes(), err
}

// give hands a buffer back, which nobody may use any more.
func (b *buffers) give(body []byte) {
	if cap(body) <= keptBody {
		b.pool.Put(&body)
	}
}
