package resilience

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/errs"
)

// The numbers of a budget that are not chosen by its owner.
const (
	// BudgetShare is the share of further tries that a budget allows when nothing else
	// is said.
	BudgetShare = 0.1
	// BudgetFloor is how many further tries a second are allowed however few calls
	// there are.
	BudgetFloor = 3
	// BudgetMemory is how long what was not spent may still be spent.
	BudgetMemory = 10 * time.Second
)

// Budget bounds how much the further tries of one process add to the load of one
// service: a share of its calls and a small floor, of which what was not spent in the
// last BudgetMemory is kept. It is safe for concurrent use; the nil Budget allows
// everything.
type Budget struct {
	calls atomic.Uint64 // the only thing that a call touches
	_     [56]byte

	mu     sync.Mutex
	share  float64
	tokens float64
	seen   uint64  // of calls
	recent float64 // calls within about BudgetMemory
	at     time.Duration
	begun  bool
}

// NewBudget returns a budget of a share of the calls, from 0 to 1, beside the floor.
func NewBudget(share float64) *Budget { return &Budget{share: share} }

// ValidateShare returns an invalid_argument error for a share that makes no sense.
func ValidateShare(share float64) error {
	if !(share >= 0 && share <= 1) || math.IsNaN(share) {
		return errs.New(errs.InvalidArgument, "a retry budget of %v: it is a share of the calls, from 0 to 1", share)
	}
	return nil
}

// Deposit counts a call. It costs one atomic add.
func (b *Budget) Deposit() {
	if b != nil {
		b.calls.Add(1)
	}
}

// Spend takes what one further try costs, and reports false when there is not so much.
// now is on any scale that moves forward only.
func (b *Budget) Spend(now time.Duration) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(now)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// settle takes in what has come since it was last looked at, with mu held.
func (b *Budget) settle(now time.Duration) {
	const floorKept = BudgetFloor * float64(BudgetMemory/time.Second)
	calls := b.calls.Load()
	fresh := float64(calls - b.seen)
	b.seen = calls
	if !b.begun {
		b.begun, b.at, b.recent = true, now, fresh
		b.tokens = floorKept + b.share*fresh
		return
	}
	passed := max(now-b.at, 0)
	b.at = max(b.at, now)
	// Calls of which it is not known when they came are taken to have come evenly.
	kept := max(0, 1-passed.Seconds()/BudgetMemory.Seconds())
	if passed > BudgetMemory {
		b.recent = fresh * BudgetMemory.Seconds() / passed.Seconds()
	} else {
		b.recent = b.recent*kept + fresh
	}
	b.tokens = min(b.tokens+b.share*fresh+BudgetFloor*passed.Seconds(), floorKept+b.share*b.recent)
}
