package config

import (
	"errors"
	"strconv"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// check refuses a change of a value, nil for none, that cond does not allow.
func (c Cond) check(id string, was *Value) error {
	stored := int64(0)
	if was != nil {
		stored = was.Revision
	}
	if c.IfRevision == nil || *c.IfRevision == stored {
		return nil
	}
	wanted := *c.IfRevision
	var e *errs.Error
	switch {
	case wanted == 0:
		e = errs.New(errs.Conflict, "configuration value %q exists, with revision %d, and was to be new; read it, and set it for that revision", id, stored)
	case stored == 0:
		e = errs.New(errs.Conflict, "configuration value %q does not exist any more, and the change was made for revision %d; set it as new, with revision 0", id, wanted)
	default:
		e = errs.New(errs.Conflict, "configuration value %q has revision %d, and the change was made for revision %d; read it again, and make the change for what it is now", id, stored, wanted)
	}
	return e.With(MetaWanted, strconv.FormatInt(wanted, 10)).With(MetaStored, strconv.FormatInt(stored, 10))
}

func unknown(namespace, id string) error {
	return errs.New(errs.NotFound, "namespace %q has no configuration value %q; see: telford config list", namespace, clip(id))
}

func noRevision(namespace, id string, revision int64) error {
	return errs.New(errs.NotFound, "configuration value %q of namespace %q has no revision %d, or it is not kept any more; see: telford config history %s", clip(id), namespace, revision, clip(id))
}

// failed is storageError for changes: it counts those that others were before.
func (v *Values) failed(operation string, err error) error {
	if errs.CodeOf(err) == errs.Conflict {
		v.stats.conflicts.Add(1)
	}
	return storageError(operation, err)
}

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
		return errs.New(errs.Unavailable, "whether it was stored is unknown; read the value before doing it again: %w", err).In(component, operation)
	case errors.Is(err, tx.ErrClosed), errors.Is(err, tx.ErrBusy), errors.Is(err, tx.ErrUnavailable):
		code = errs.Unavailable
	}
	return errs.New(code, "%w", err).In(component, operation)
}
