//! Stand-in.
use zeroize::Zeroizing;
pub(super) struct UserName(String);
impl UserName {
    pub(super) fn parse(text: &str) -> Result<Self, ()> {
        Ok(Self(text.to_owned()))
    }
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}
pub(super) fn prepare_password(text: &str) -> Result<Zeroizing<String>, ()> {
    Ok(Zeroizing::new(text.to_owned()))
}
