package registry

import (
	"errors"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

const component = "registry"

// storeError says in the words of the model what the store answered.
func storeError(operation string, err error) error {
	var known *errs.Error
	switch {
	case errors.As(err, &known):
		return known.In(component, operation)
	case errors.Is(err, tx.ErrOutcomeUnknown):
		return errs.New(errs.Unavailable, "whether it was stored is unknown; do it again, which is safe: %w", err).In(component, operation)
	case errors.Is(err, tx.ErrFull):
		return errs.New(errs.ResourceExhausted, "%w; free space or raise the limit", err).Unstarted().In(component, operation)
	case errors.Is(err, tx.ErrReadOnly):
		return errs.New(errs.FailedPrecondition, "%w", err).Unstarted().In(component, operation)
	case errors.Is(err, tx.ErrClosed):
		return errs.New(errs.Unavailable, "%w", err).Unstarted().In(component, operation)
	}
	return errs.From(err).In(component, operation)
}

func notFound(operation string, k key) error {
	return errs.New(errs.NotFound, "instance %q is not registered in namespace %q; registered ones and those gone in the last day are in the list of services",
		k.id, k.namespace).In(component, operation).With("namespace", k.namespace).With("instance", k.id)
}

func stoppedError(operation string) error {
	return errs.New(errs.Unavailable, "the registry has stopped").Unstarted().In(component, operation)
}
