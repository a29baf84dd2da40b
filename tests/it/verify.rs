//! `/auth/verify`: the verdict that proxying would give, to trusted proxies.
