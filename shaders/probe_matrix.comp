// Compiles where glslang knows cooperative matrices; nothing runs it.
#version 450
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require

layout(local_size_x = 32) in;
shared uvec4 from[32];

void main()
{
    coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA> a;
    coopMatLoad(a, from, 0, 2, gl_CooperativeMatrixLayoutRowMajor);
}
