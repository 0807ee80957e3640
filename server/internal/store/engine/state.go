package engine

import (
	"errors"
	"fmt"
)

var errOver = errors.New("the transaction is over")

// State is the part of a transaction that both engines keep in the same way. One
// goroutine at a time uses it.
type State struct {
	after   []func()
	err     error
	over    bool
	inQuery bool
}

// AfterCommit implements tx.Tx.
func (s *State) AfterCommit(f func()) { s.after = append(s.after, f) }

// After returns the functions queued by AfterCommit.
func (s *State) After() []func() { return s.after }

// Begin says whether a statement may run now, and must be followed by End.
func (s *State) Begin() error {
	switch {
	case s.over:
		return errOver
	case s.inQuery:
		return errors.New("a statement ran inside the function given to Query")
	case s.err != nil:
		return s.err
	}
	s.inQuery = true
	return nil
}

// End ends a statement. A non-nil err fails the transaction.
func (s *State) End(err error) error {
	s.inQuery = false
	if err != nil {
		s.err = fmt.Errorf("the transaction failed: %w", err)
	}
	return err
}

// Finish ends the transaction's function, which returned err: later statements are
// refused. It returns the error of the whole.
func (s *State) Finish(err error) error {
	s.over = true
	if err == nil {
		return s.err
	}
	return err
}
