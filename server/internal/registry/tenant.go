package registry

import (
	"strings"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// RemoveNamespaceTx refuses, failed_precondition, to let a namespace end that has
// instances. Tombstones of it lapse by themselves.
func (r *Registry) RemoveNamespaceTx(_ tx.Tx, namespace string) error {
	const shown = 3
	list := r.List(Filter{Namespace: namespace})
	if len(list) == 0 {
		return nil
	}
	var ids []string
	for _, i := range list[:min(shown, len(list))] {
		ids = append(ids, i.ID+" of "+i.Declaration.Service)
	}
	if len(list) > shown {
		ids = append(ids, "...")
	}
	return errs.New(errs.FailedPrecondition, "namespace %q has instances (%d): %s; stop them or remove them first: telford services deregister ID",
		namespace, len(list), strings.Join(ids, ", ")).In(component, "remove namespace")
}
