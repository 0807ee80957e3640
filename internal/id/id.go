// Package id makes the identifiers of Telford: a prefix that says what it names, and
// a UUID of version 7 in lower-case base32, so that ids sort by the time they were
// made. It starts no goroutines.
package id

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"sync"
	"time"
)

var encoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// Len is the number of characters behind the prefix and its underscore.
const Len = 26

// Source makes ids that increase even inside one millisecond. The zero value is ready.
type Source struct {
	mu   sync.Mutex
	last uint64 // milliseconds << 12 | counter
}

// New returns prefix + "_" + 26 characters for the instant now.
func (s *Source) New(prefix string, now time.Time) string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // never fails
	next := uint64(now.UnixMilli()) << 12
	s.mu.Lock()
	if next <= s.last {
		next = s.last + 1
	}
	s.last = next
	s.mu.Unlock()
	binary.BigEndian.PutUint64(u[:], next>>12<<16|next&0xfff)
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	return prefix + "_" + encoding.EncodeToString(u[:])
}

// New returns an id for the present moment. Two calls may be out of order inside one
// millisecond; use a Source where that matters.
func New(prefix string) string {
	var s Source
	return s.New(prefix, time.Now())
}

// Valid reports whether text is an id with the given prefix.
func Valid(prefix, text string) bool {
	rest, ok := strings.CutPrefix(text, prefix+"_")
	if !ok || len(rest) != Len {
		return false
	}
	_, err := encoding.DecodeString(rest)
	return err == nil
}

// Bytes returns the 16 bytes behind the prefix of an id, and false when text is not
// one in the form that New gives it.
func Bytes(prefix, text string) (b [16]byte, ok bool) {
	if !Valid(prefix, text) {
		return b, false
	}
	if _, err := encoding.Decode(b[:], []byte(text[len(prefix)+1:])); err != nil {
		return b, false
	}
	return b, FromBytes(prefix, b) == text
}

// FromBytes is the reverse of Bytes.
func FromBytes(prefix string, b [16]byte) string {
	return prefix + "_" + encoding.EncodeToString(b[:])
}
