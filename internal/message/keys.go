package message

import (
	"telford.dev/telford/internal/errs"
)

// MaxKey is the most bytes of an idempotency key and of a business key.
const MaxKey = 256

// CheckKeys refuses an idempotency key or a business key that not every wire carries,
// naming it.
func CheckKeys(call *Call) *errs.Error {
	if err := CheckKey("idempotency key", call.IdempotencyKey); err != nil {
		return err
	}
	return CheckKey("business key", call.BusinessKey)
}

// CheckKey refuses a key over MaxKey, or with anything but printable ASCII in it, or with
// a space at one of its ends, which HTTP would take away. The empty key is none.
func CheckKey(what, key string) *errs.Error {
	if len(key) > MaxKey {
		return errs.New(errs.InvalidArgument, "the %s %q… has %d bytes and may have %d: use a shorter one, such as a UUID or a hash of what it stands for",
			what, ascii(key[:32]), len(key), MaxKey).Unstarted()
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' || key[i] == ' ' && (i == 0 || i == len(key)-1) {
			return errs.New(errs.InvalidArgument, "the %s %q holds byte %d, %#02x: it is printable ASCII without spaces at its ends, so that every wire carries it",
				what, ascii(key), i, key[i]).Unstarted()
		}
	}
	return nil
}

// ascii makes what stands in an error safe to be carried by headers.
func ascii(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] < ' ' || b[i] > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
