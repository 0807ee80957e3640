package identity

import (
	"bytes"
	"context"
	"sync"

	"telford.dev/telford/server/internal/tx"
)

// MemoryVault keeps secrets for as long as it lives: for clusters that end with their
// process. The zero value is ready.
type MemoryVault struct {
	mu      sync.Mutex
	secrets map[string][]byte
}

// Load implements Vault.
func (v *MemoryVault) Load(_ context.Context, name string) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	secret, ok := v.secrets[name]
	if !ok {
		return nil, tx.ErrNotFound
	}
	return bytes.Clone(secret), nil
}

// Create implements Vault.
func (v *MemoryVault) Create(ctx context.Context, name string, secret []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.secrets[name]; ok {
		return tx.ErrExists
	}
	v.set(name, secret)
	return nil
}

// Replace implements Vault.
func (v *MemoryVault) Replace(_ context.Context, name string, secret []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.set(name, secret)
	return nil
}

// Delete implements Vault.
func (v *MemoryVault) Delete(_ context.Context, name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.secrets, name)
	return nil
}

func (v *MemoryVault) set(name string, secret []byte) {
	if v.secrets == nil {
		v.secrets = make(map[string][]byte)
	}
	v.secrets[name] = bytes.Clone(secret)
}
