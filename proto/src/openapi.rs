//! Schemas of the types whose JSON form is a text with rules of its own.

/// Describes types as strings in the OpenAPI document.
macro_rules! text_schema {
    ($($name:ident),*) => {$(
        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::schema::Object::with_type(utoipa::openapi::schema::Type::String)
                    .into()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}
    )*};
}

pub(crate) use text_schema;
