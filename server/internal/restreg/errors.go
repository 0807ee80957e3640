package restreg

import (
	"errors"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// The keys of the facts in errors: what kind of object is not there, and which.
const (
	MetaObject = "object"
	MetaKey    = "key"
	// MetaMost is how many objects there may be.
	MetaMost = "most"
)

// The kinds of objects, as the wire names them.
const (
	ObjectService = "Service"
	ObjectToken   = "HeartbeatMarker"
)

// notThere says that an object is not there.
func notThere(object, key string) *errs.Error {
	return errs.New(errs.NotFound, "there is no %s %q", object, key).In(component, "").With(MetaObject, object).With(MetaKey, key)
}

// storeError says in the words of the model what the store answered.
func storeError(operation string, err error) error {
	var known *errs.Error
	code := errs.CodeOf(err)
	switch {
	case errors.As(err, &known):
		return known.In(component, operation)
	case errors.Is(err, tx.ErrFull):
		code = errs.ResourceExhausted
	case errors.Is(err, tx.ErrReadOnly):
		code = errs.FailedPrecondition
	case errors.Is(err, tx.ErrClosed), errors.Is(err, tx.ErrOutcomeUnknown), errors.Is(err, tx.ErrBusy), errors.Is(err, tx.ErrUnavailable):
		code = errs.Unavailable
	}
	return errs.New(code, "%w", err).In(component, operation)
}
