package engine

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"telford.dev/telford/server/internal/tx"
)

// ReadLimit is how long a read transaction may last: a longer one keeps the SQLite
// log from being reused and is logged.
const ReadLimit = 100 * time.Millisecond

// Micros is how an instant is stored: microseconds since 1970 UTC, 0 for none.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time is the instant that Micros stored.
func Time(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// CheckArgs refuses what one of the engines could not store (tx.ErrInvalid), so that
// both accept the same values, and returns the number of bytes in args.
func CheckArgs(args []any) (size int, err error) {
	for i, arg := range args {
		switch v := arg.(type) {
		case string:
			if !utf8.ValidString(v) {
				return 0, fmt.Errorf("%w: parameter %d, %q, is not valid UTF-8", tx.ErrInvalid, i+1, shorten(v))
			}
			if strings.IndexByte(v, 0) >= 0 {
				return 0, fmt.Errorf("%w: parameter %d, %q, has a NUL in it", tx.ErrInvalid, i+1, shorten(v))
			}
			size += len(v)
		case []byte:
			size += len(v)
		case int64, bool:
			size += 8
		default:
			return 0, fmt.Errorf("%w: parameter %d is a %T; the store takes int64, string, []byte and bool", tx.ErrInvalid, i+1, arg)
		}
	}
	return size, nil
}

func shorten(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
