package restreg

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"
)

// gregorian is how many steps of 100 ns lie between the beginning of UUID time, 15
// October 1582, and 1970.
const gregorian = 0x01b21dd213814000

// UUID is a version 1 UUID.
type UUID [16]byte

// The faults of a text that should be a version 1 UUID, in the words of the wire.
var (
	errUUID    = errors.New("Invalid UUID")             //nolint:staticcheck // the text is part of the wire
	errVariant = errors.New("Unsupported UUID variant") //nolint:staticcheck // the text is part of the wire
	errVersion = errors.New("UUID is not version 1")    //nolint:staticcheck // the text is part of the wire
)

// ParseUUID reads a version 1 UUID in its usual form, in letters of any case. The errors
// are in the words of the wire.
func ParseUUID(s string) (u UUID, err error) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, errUUID
	}
	bare := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(u[:], []byte(bare)); err != nil {
		return u, errUUID
	}
	switch {
	case u[8]&0xc0 != 0x80:
		return u, errVariant
	case u[6]>>4 != 1:
		return u, errVersion
	}
	return u, nil
}

// String returns the usual form in lower case.
func (u UUID) String() string {
	b := make([]byte, 36)
	hex.Encode(b[:8], u[:4])
	b[8] = '-'
	hex.Encode(b[9:13], u[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], u[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], u[8:10])
	b[23] = '-'
	hex.Encode(b[24:], u[10:])
	return string(b)
}

// Time is the instant in the UUID.
func (u UUID) Time() time.Time {
	ticks := int64(binary.BigEndian.Uint16(u[6:8])&0x0fff)<<48 | int64(binary.BigEndian.Uint16(u[4:6]))<<32 | int64(binary.BigEndian.Uint32(u[:4]))
	ticks -= gregorian
	return time.Unix(ticks/1e7, ticks%1e7*100).UTC()
}

// newUUID is the UUID of an instant whose clock and node fields are tail.
func newUUID(at time.Time, tail [8]byte) (u UUID) {
	ticks := uint64(at.UnixMicro()*10 + gregorian)
	binary.BigEndian.PutUint32(u[:4], uint32(ticks))
	binary.BigEndian.PutUint16(u[4:6], uint16(ticks>>32))
	binary.BigEndian.PutUint16(u[6:8], uint16(ticks>>48)&0x0fff|0x1000)
	copy(u[8:], tail[:])
	u[8] = u[8]&0x3f | 0x80
	return u
}

// token is the heartbeat token of a service for a deadline: its time is the deadline, the
// rest proves that this cluster made it for just this service since it joined.
func token(secret *[32]byte, namespace, id string, joined, deadline time.Time) UUID {
	mac := hmac.New(sha256.New, secret[:])
	field := func(s string) {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(s)))
		mac.Write(n[:])
		mac.Write([]byte(s))
	}
	field("heartbeat")
	field(namespace)
	field(id)
	var times [16]byte
	binary.BigEndian.PutUint64(times[:8], uint64(joined.UnixMicro()))
	binary.BigEndian.PutUint64(times[8:], uint64(deadline.UnixMicro()))
	mac.Write(times[:])
	return newUUID(deadline, [8]byte(mac.Sum(nil)[:8]))
}

// proves reports whether u is the token of the service for the instant in u.
func (u UUID) proves(secret *[32]byte, namespace, id string, joined time.Time) bool {
	want := token(secret, namespace, id, joined, u.Time())
	return subtle.ConstantTimeCompare(want[:], u[:]) == 1
}
