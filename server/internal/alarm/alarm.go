// Package alarm owns the board of states that do not mend themselves: what somebody has
// to see to, until it is over. It never finds out what is wrong, and it keeps nothing
// over a restart: whoever raises an alarm raises it again while it lasts. It starts no
// goroutines.
package alarm

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"telford.dev/telford/internal/clock"
)

// Severity says how soon an alarm has to be seen to.
type Severity string

// The severities, the worst first.
const (
	Critical Severity = "critical" // something fails, or is about to
	Warning  Severity = "warning"  // nothing fails yet
)

// Codes of the alarms that more than one part of the program knows.
const (
	MassExpiry        = "mass_expiry"
	CertificateExpiry = "certificate_expiry"
)

// Alarm is a state that does not mend itself.
type Alarm struct {
	// Code is a stable name, of which a board holds one alarm at most.
	Code     string
	Severity Severity
	// Message says what is wrong and what to do.
	Message string
	// Since is when the alarm was raised first, whatever it has said since.
	Since time.Time
}

// Board holds the alarms of one node. Its methods are safe for concurrent use; on a nil
// Board they do nothing.
type Board struct {
	clock clock.Clock
	log   *slog.Logger

	mu     sync.Mutex
	alarms map[string]Alarm
	// turn is held over each change and the line about it, so that the lines come in the
	// order of the changes.
	turn sync.Mutex
}

// New returns an empty board. A nil clock is that of the machine, a nil log discards.
func New(c clock.Clock, log *slog.Logger) *Board {
	if c == nil {
		c = clock.Real()
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Board{clock: c, log: log, alarms: make(map[string]Alarm)}
}

// Raise puts an alarm up, or has the one of this code say something else. A change is
// logged once, as a warning or, when it is critical, as an error; raising what is there
// already does nothing. An unknown severity is critical.
func (b *Board) Raise(code string, severity Severity, message string) {
	if b == nil {
		return
	}
	if severity != Warning {
		severity = Critical
	}
	b.turn.Lock()
	defer b.turn.Unlock()
	b.mu.Lock()
	a, there := b.alarms[code]
	if there && a.Severity == severity && a.Message == message {
		b.mu.Unlock()
		return
	}
	if !there {
		a = Alarm{Code: code, Since: b.clock.Now()}
	}
	a.Severity, a.Message = severity, message
	b.alarms[code] = a
	b.mu.Unlock()
	level := slog.LevelError
	if severity == Warning {
		level = slog.LevelWarn
	}
	b.log.Log(context.Background(), level, "alarm", "alarm", code, "message", message)
}

// Clear takes the alarm of a code down. It is logged as a warning, like all that says
// how things stand with an alarm; clearing what is not up does nothing.
func (b *Board) Clear(code string) {
	if b == nil {
		return
	}
	b.turn.Lock()
	defer b.turn.Unlock()
	b.mu.Lock()
	a, there := b.alarms[code]
	delete(b.alarms, code)
	b.mu.Unlock()
	if there {
		b.log.Warn("the alarm is over", "alarm", code, "lasted", b.clock.Now().Sub(a.Since).Round(time.Second))
	}
}

// List returns what is up: the worst first, then the oldest. The slice belongs to the
// caller.
func (b *Board) List() []Alarm {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	out := make([]Alarm, 0, len(b.alarms))
	for _, a := range b.alarms {
		out = append(out, a)
	}
	b.mu.Unlock()
	slices.SortFunc(out, func(x, y Alarm) int {
		// "critical" comes before "warning" in the alphabet too.
		return cmp.Or(cmp.Compare(x.Severity, y.Severity), x.Since.Compare(y.Since), cmp.Compare(x.Code, y.Code))
	})
	return out
}
