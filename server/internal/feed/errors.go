package feed

import (
	"errors"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// storageError says in the words of the model what the store answered; nil stays nil.
func storageError(operation string, err error) error {
	if err == nil {
		return nil
	}
	var known *errs.Error
	if errors.As(err, &known) {
		return known.In(component, operation)
	}
	code := errs.CodeOf(err)
	switch {
	case errors.Is(err, tx.ErrFull):
		code = errs.ResourceExhausted
	case errors.Is(err, tx.ErrInvalid):
		code = errs.InvalidArgument
	case errors.Is(err, tx.ErrReadOnly):
		code = errs.FailedPrecondition
	case errors.Is(err, tx.ErrOutcomeUnknown):
		return errs.New(errs.Unavailable, "whether it was stored is unknown; look before doing it again: %w", err).In(component, operation)
	case errors.Is(err, tx.ErrClosed), errors.Is(err, tx.ErrBusy), errors.Is(err, tx.ErrUnavailable):
		code = errs.Unavailable
	}
	return errs.New(code, "%w", err).In(component, operation)
}
