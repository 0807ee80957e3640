package feed

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"
)

// Why a text is no ID, matched with errors.Is.
var (
	ErrNotUUID = errors.New("want a UUID: 8-4-4-4-12 hexadecimal digits")
	ErrVariant = errors.New("the UUID is of another variant than that of RFC 4122")
	ErrVersion = errors.New("the UUID is not of version 1, the one with a time in it")
)

// epoch is 1970 in the time of UUIDs, which counts from 1582-10-15 in steps of 100 ns.
const epoch = 0x01B21DD213814000

const maxTicks = 1<<60 - 1

// ID is the id of an event: a UUID of version 1. IDs are ordered by their time, then by
// the bytes behind it. The zero ID is before all others, and none of an event.
type ID struct {
	// Ticks is the time, in steps of 100 ns since 1582-10-15.
	Ticks int64
	// Rest are variant, clock sequence and node.
	Rest [8]byte
}

// NewID returns the id with the time of at, cut to 100 ns, and the bytes of rest behind
// it, whose first two bits become those of the variant.
func NewID(at time.Time, rest [8]byte) ID {
	rest[0] = rest[0]&0x3f | 0x80
	return ID{Ticks: ticks(at), Rest: rest}
}

func ticks(at time.Time) int64 {
	n := at.Unix()*1e7 + int64(at.Nanosecond()/100) + epoch
	return min(max(n, 0), maxTicks)
}

// ParseID reads an id in letters of any case. ErrNotUUID, ErrVariant, ErrVersion: it is
// none.
func ParseID(s string) (ID, error) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, ErrNotUUID
	}
	b, err := hex.DecodeString(s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:])
	if err != nil {
		return ID{}, ErrNotUUID
	}
	switch {
	case b[8]&0xc0 != 0x80:
		return ID{}, ErrVariant
	case b[6]>>4 != 1:
		return ID{}, ErrVersion
	}
	low, mid, high := binary.BigEndian.Uint32(b), binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])&0x0fff
	return ID{Ticks: int64(high)<<48 | int64(mid)<<32 | int64(low), Rest: [8]byte(b[8:])}, nil
}

// String is the id in lower case.
func (i ID) String() string {
	var b [16]byte
	n := uint64(i.Ticks)
	binary.BigEndian.PutUint32(b[:], uint32(n))
	binary.BigEndian.PutUint16(b[4:], uint16(n>>32))
	binary.BigEndian.PutUint16(b[6:], uint16(n>>48)&0x0fff|0x1000)
	copy(b[8:], i.Rest[:])
	out := make([]byte, 36)
	hex.Encode(out, b[:4])
	hex.Encode(out[9:], b[4:6])
	hex.Encode(out[14:], b[6:8])
	hex.Encode(out[19:], b[8:10])
	hex.Encode(out[24:], b[10:])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out)
}

// Time is the time in the id, in UTC.
func (i ID) Time() time.Time {
	n := i.Ticks - epoch
	return time.Unix(n/1e7, n%1e7*100).UTC()
}

// Compare orders ids.
func (i ID) Compare(j ID) int {
	return cmp.Or(cmp.Compare(i.Ticks, j.Ticks), bytes.Compare(i.Rest[:], j.Rest[:]))
}

// next is the first id behind i.
func (i ID) next() ID {
	for n := len(i.Rest) - 1; n >= 0; n-- {
		if i.Rest[n]++; i.Rest[n] != 0 {
			return i
		}
	}
	i.Ticks++
	return i
}
