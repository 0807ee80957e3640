// Package storetest owns the conformance suite that every engine of the store passes,
// and the throw-away PostgreSQL that tests run on. Only tests import it. It starts one
// server process for each test process and no goroutines; the server ends with the
// process that started it, however that ends.
package storetest

import (
	"testing"

	"telford.dev/telford/server/internal/config"
	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/idempotency"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/restreg"
	"telford.dev/telford/server/internal/rules"
	"telford.dev/telford/server/internal/tx"
)

// Store is what the suite examines.
type Store interface {
	tx.DB
	identity.Storage
	registry.Storage
	rules.Storage
	idempotency.Storage
	feed.Storage
	config.Storage
	restreg.Storage
	Close() error
}

// Open opens a new, empty store whose end is the test's.
type Open func(t testing.TB) Store

// Run runs the suite of cases, in parallel. Agree is its other half: random ones.
func Run(t *testing.T, open Open) {
	for name, f := range map[string]func(*testing.T, Open){
		"keys":                testKeys,
		"revocations":         testRevocations,
		"namespaces":          testNamespaces,
		"meta":                testMeta,
		"swap_meta":           testSwapMeta,
		"instances":           testInstances,
		"tombstones":          testTombstones,
		"epochs":              testEpochs,
		"rules":               testRules,
		"shadow denials":      testShadow,
		"keyed":               testKeyed,
		"keyed_expiry":        testKeyedExpiry,
		"keyed_race":          testKeyedRace,
		"feed":                testFeed,
		"rest services":       testRESTServices,
		"configuration":       testConfig,
		"config history":      testConfigHistory,
		"values":              testValues,
		"rollback":            testRollback,
		"after commit":        testAfterCommit,
		"snapshot":            testSnapshot,
		"read only":           testReadOnly,
		"context":             testContext,
		"closed":              testClosed,
		"beside each other":   testConcurrent,
		"transaction is over": testOver,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, open)
		})
	}
}

// write runs f in a transaction that must succeed.
func write(t testing.TB, s Store, f func(tx.Tx) error) {
	t.Helper()
	if err := s.Write(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// read runs f in a read transaction that must succeed.
func read(t testing.TB, s Store, f func(tx.Tx) error) {
	t.Helper()
	if err := s.Read(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}
